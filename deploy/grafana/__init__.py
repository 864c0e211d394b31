"""The Grafana dashboard as code: what it shows is in rows/, how Grafana wants it in dashboard.py."""
