"""HTTP in general: keys, errors, bodies, streams, disconnects, logs. Knows no resource."""
