"""The bodies of /v1/profiles."""

from __future__ import annotations

from typing import Literal

import msgspec


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """`name@version`; a request may name it in full, or by name alone for the newest version."""
    object: Literal["profile"] = "profile"
    name: str
    version: int
    description: str


class ProfileList(msgspec.Struct, frozen=True):
    data: list[Profile]
    object: Literal["list"] = "list"
