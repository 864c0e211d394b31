"""API keys on the database itself, whether the service runs or not; its audit log says `command-line`."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from deploy.launcher.problem import Problem
from frontend.db.database import open_database
from frontend.db.engines import database_url
from frontend.domain.api_keys import ApiKey
from frontend.domain.conversations import PageRequest
from frontend.domain.errors import ServiceError
from frontend.domain.limits import Limits
from frontend.domain.principal import Scope
from frontend.runtime import load_profiles
from frontend.services.keys.management import OVERLAP_S, USUAL_SCOPES, KeyService, Minted, NewKey
from frontend.services.keys.minter import Minter
from frontend.services.keys.pepper import read_pepper
from frontend.settings import Settings

COMMAND_LINE = Minter()
AT_ONCE = 100
HEAD = ("ID", "TENANT", "NAME", "STATUS", "CREATED", "EXPIRES", "LAST USED", "SCOPES", "LIMITS")
UNITS = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "concurrency": "at once"}


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[KeyService]:
    """The database is made, and brought to this version, if need be. Raises Problem, SettingsError."""
    sql, url = settings.sql, database_url(settings)
    try:
        pepper = read_pepper(settings.home / "pepper")
        async with open_database(url, pool_size=1, timeout_s=sql.timeout_s, synchronous=sql.synchronous) as database:
            yield KeyService(database, pepper)
    except ServiceError as exc:
        raise Problem(exc.message) from exc


async def create(
    settings: Settings,
    tenant: str,
    *,
    name: str,
    scopes: Sequence[Scope],
    profile: str | None,
    limits: Limits,
    expires_in_s: int | None,
) -> Minted:
    """`scopes`: none for the usual ones."""
    async with opened(settings) as keys:
        if profile is not None:
            load_profiles(settings).get(profile)
        asked = NewKey(
            tenant=tenant,
            name=name,
            scopes=frozenset(scopes) or USUAL_SCOPES,
            profile=profile,
            limits=limits,
            expires_in_s=expires_in_s,
        )
        return await keys.create(COMMAND_LINE, asked)


async def rotate(settings: Settings, key_id: str, *, overlap_s: int | None, expires_in_s: int | None) -> Minted:
    """`overlap_s`: None for the usual one."""
    overlap_s = OVERLAP_S if overlap_s is None else overlap_s
    async with opened(settings) as keys:
        return await keys.rotate(COMMAND_LINE, key_id, overlap_s=overlap_s, expires_in_s=expires_in_s)


async def revoke(settings: Settings, key_id: str) -> ApiKey:
    async with opened(settings) as keys:
        return await keys.revoke(COMMAND_LINE, key_id)


async def every(settings: Settings, tenant: str | None) -> list[ApiKey]:
    """By creation."""
    found: list[ApiKey] = []
    async with opened(settings) as keys:
        more = True
        while more:
            after = found[-1].id if found else None
            page = await keys.page(tenant, PageRequest(after=after, limit=AT_ONCE, order="asc"))
            found, more = [*found, *page.data], page.has_more
    return found


def shown(key: ApiKey) -> dict[str, object]:
    """Without the digest."""
    row: dict[str, object] = msgspec.to_builtins(key)
    del row["digest"]
    return {**row, "scopes": sorted(key.scopes), "status": key.status(time.time())}


def table(keys: Sequence[ApiKey]) -> str:
    """Columns as wide as what stands in them; times are UTC."""
    rows = [HEAD, *map(cells, keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def cells(key: ApiKey) -> tuple[str, ...]:
    limits = msgspec.structs.asdict(key.limits)
    return (
        key.id,
        key.tenant,
        printable(key.name) or "-",
        key.status(time.time()) if key.replaced_by is None else f"{key.status(time.time())}, rotated",
        moment(key.created_at),
        moment(key.expires_at),
        moment(key.last_used_at),
        " ".join(sorted(key.scopes)),
        ", ".join(f"{limits[name]} {unit}" for name, unit in UNITS.items() if limits[name] is not None) or "-",
    )


def moment(unix_s: int | None) -> str:
    return "-" if unix_s is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(unix_s))


def printable(text: str) -> str:
    """A name came from whoever made the key: it moves no cursor."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
