"""API keys: their form, who they belong to, how they are made, rotated and revoked, and when they were used last."""
