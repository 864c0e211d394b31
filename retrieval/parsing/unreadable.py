"""The one exception of this package: a file that has no text for us, and why, said so that its owner can act on it."""

from __future__ import annotations

from typing import Literal

Reason = Literal["unsupported_file", "invalid_file", "server_error"]
"""A kind of file that nobody reads here; one that is broken, locked, empty or too large; a defect of ours."""


class Unreadable(Exception):
    def __init__(self, code: Reason, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def unsupported(message: str) -> Unreadable:
    return Unreadable("unsupported_file", message)


def invalid(message: str) -> Unreadable:
    return Unreadable("invalid_file", message)
