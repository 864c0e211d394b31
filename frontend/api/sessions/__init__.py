"""/v1/sessions: ours, not OpenAI's."""
