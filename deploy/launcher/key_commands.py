"""`hermes2 keys`: what is typed, and what is printed. A key goes to standard output alone, so that it can be piped."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click
import structlog

from frontend import settings as settings_module
from frontend.domain.limits import MOST, Limits
from frontend.domain.principal import SCOPES, Scope

if TYPE_CHECKING:
    from frontend.services.keys.management import Minted

UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[int]):
    """30s, 15m, 24h, 90d; a bare number is seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"([0-9]{1,10})([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is no duration: 30s, 15m, 24h, 90d", param, ctx)
        return int(match[1]) * UNITS_S[match[2]]


class OneKey(click.ParamType[str]):
    """An id. What is none is not repeated: it may be a key, and this may be a log."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if re.fullmatch("[0-9a-f]{16}", str(value)) is None:
            self.fail("that is no id of a key: 16 hexadecimal digits, the part after 'hm2_'", param, ctx)
        return str(value)


def expiring(command: Callable[..., None]) -> Callable[..., None]:
    help_ = (
        "The key ends after so long: 90d, 12h; without it a new key never does, and a rotated one when it would have."
    )
    return click.option("--expires-in", type=Duration(), help=help_)(command)


@click.group("keys")
def keys_group() -> None:
    """API keys, each of one tenant. The service may run meanwhile."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is the key's


@keys_group.command("create")
@click.option("--tenant", required=True, help="Whose key: only keys of the same tenant see what is kept with it.")
@click.option("--name", default="", help="What the key is for.")
@click.option("--scope", "scopes", multiple=True, type=click.Choice(SCOPES), help="What it may do; can be repeated.")
@click.option("--profile", help="The conversation profile of its requests, where they name none.")
@expiring
@click.option("--requests-per-minute", type=click.IntRange(1, MOST), help="Most requests in a minute.")
@click.option("--tokens-per-minute", type=click.IntRange(1, MOST), help="Most tokens in a minute, prompts and answers.")
@click.option("--concurrency", type=click.IntRange(1, MOST), help="Most generations at the same time.")
def create_command(
    tenant: str,
    name: str,
    scopes: tuple[Scope, ...],
    profile: str | None,
    expires_in: int | None,
    requests_per_minute: int | None,
    tokens_per_minute: int | None,
    concurrency: int | None,
) -> None:
    """Make an API key, and print it, once: it cannot be shown again.

    Without --scope it may do all but metrics and admin.
    """
    from deploy.launcher import keys  # half a second of imports that no other command needs, as below

    limits = Limits(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, concurrency=concurrency
    )
    made = keys.create(
        settings_module.load(),
        tenant,
        name=name,
        scopes=scopes,
        profile=profile,
        limits=limits,
        expires_in_s=expires_in,
    )
    tell(asyncio.run(made))


@keys_group.command("list")
@click.option("--tenant", help="Only keys of this one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_command(tenant: str | None, as_json: bool) -> None:
    """Print all keys, also those that have ended, the oldest first. No secret is among it."""
    from deploy.launcher import keys

    found = asyncio.run(keys.every(settings_module.load(), tenant))
    if not as_json:
        click.echo(keys.table(found))
        return
    for key in found:
        click.echo(json.dumps(keys.shown(key)))


@keys_group.command("rotate")
@click.argument("key_id", type=OneKey())
@click.option("--overlap", type=Duration(), help="The old key works for so long: 24h, unless it is said; 0: no more.")
@expiring
def rotate_command(key_id: str, overlap: int | None, expires_in: int | None) -> None:
    """Make a key in the place of another, with all that it may do, and print it, once."""
    from deploy.launcher import keys

    tell(asyncio.run(keys.rotate(settings_module.load(), key_id, overlap_s=overlap, expires_in_s=expires_in)))


@keys_group.command("revoke")
@click.argument("key_id", type=OneKey())
def revoke_command(key_id: str) -> None:
    """End a key, for good: a running service refuses it within a second."""
    from deploy.launcher import keys

    key = asyncio.run(keys.revoke(settings_module.load(), key_id))
    click.echo(f"The key {key.id} of tenant {key.tenant!r} is revoked.", err=True)


def tell(made: Minted) -> None:
    click.echo(
        f"The key {made.key.id} of tenant {made.key.tenant!r}. Keep it now: it is stored nowhere, and cannot be shown"
        " again.",
        err=True,
    )
    if made.replaced is not None:
        from deploy.launcher.keys import moment

        click.echo(f"The key {made.replaced.id} works until {moment(made.replaced.expires_at)} UTC.", err=True)
    click.echo(made.text)
