"""/v1/admin: API keys of all tenants, and the log of what was done to them. Ours, not OpenAI's."""
