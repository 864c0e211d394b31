"""The deployment files, written from their templates, the settings and deploy/shares.toml."""
