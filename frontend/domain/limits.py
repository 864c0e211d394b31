"""How much one key and one tenant may ask for, and what they have left."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

LimitName = Literal["requests", "tokens", "concurrency"]
MOST = 50_000_000
"""The largest limit. Up to here the arithmetic of frontend/services/limits/rates.py is exact in Lua's doubles too."""
Limit = Annotated[int, Meta(ge=0, le=MOST)]


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """None: no limit."""

    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    """Tokens of prompts and answers together."""
    concurrency: Limit | None = None
    """Generations at the same time."""


UNLIMITED = Limits()


class Allowance(msgspec.Struct, frozen=True):
    limit: int
    """Per minute."""
    remaining: int
    """That can be had at once."""
    reset_s: float
    """Until nothing is owed any more, seconds."""


class Standing(msgspec.Struct):
    """What the limiter has said last in one request: the tighter of the key's and the tenant's allowances. None: no limit,
    or not asked."""

    requests: Allowance | None = None
    tokens: Allowance | None = None


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Whose limits count for a request."""

    tenant: str
    key_id: str
    of_tenant: Limits
    of_key: Limits


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken from an account, until it is settled."""

    account: Account
    id: str
    """Of its lease; "" where none was taken."""
    tokens: int
    local: bool
    """It was given by this process alone, without Valkey."""
    standing: Standing
