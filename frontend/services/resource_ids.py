"""Ids as they come from outside: which of them are worth a look into the database."""

from __future__ import annotations

import re

POSSIBLE = re.compile(r"[A-Za-z0-9._-]{1,128}")


def could_be(resource_id: str) -> bool:
    """False for what no resource is called: PostgreSQL would choke on a NUL."""
    return POSSIBLE.fullmatch(resource_id) is not None
