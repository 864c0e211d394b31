"""Identifiers: a prefix that tells the kind, and 128 random bits that cannot be guessed."""

import secrets


def new(prefix: str) -> str:
    """`prefix` and 32 hexadecimal digits from the system's random source: "chatcmpl-6f0c…"."""
    return prefix + secrets.token_hex(16)
