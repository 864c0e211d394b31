"""The routes. A URL segment is a folder with controller, schema and mapping; behaviour is in services."""
