"""GET /health/live, /health/startup, /health/ready."""
