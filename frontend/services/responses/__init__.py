"""Responses: turns of the model that are kept."""
