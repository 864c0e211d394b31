"""The one error of a request: what it asks for cannot be done, and Triton answers INVALID_ARG."""

from __future__ import annotations


class InvalidArgument(Exception):
    """The message says which tensor or row is wrong."""
