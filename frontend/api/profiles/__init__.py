"""GET /v1/profiles: ours, not OpenAI's."""
