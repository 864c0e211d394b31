"""What runs in containers beside the service itself, with the frontend's image: small commands, no launcher."""
