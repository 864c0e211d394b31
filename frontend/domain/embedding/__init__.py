"""Texts as vectors: what is known of the embedding model, and how it reads a text."""
