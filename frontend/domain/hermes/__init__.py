"""Hermes-2's own formats: the ChatML prompt and the encoder that keeps text from becoming control tokens."""
