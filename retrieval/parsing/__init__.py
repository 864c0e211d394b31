"""Files to text, each read by a process of its own with bounds on time, memory and size. Knows no chunks and no service."""
