"""hermes2 keys: as it is called from a shell."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from deploy.launcher import cli
from deploy.launcher.problem import Problem
from frontend import settings
from frontend.db.database import SqlDatabase
from frontend.db.engines import database_url
from frontend.domain.api_keys import ApiKey, AuditEntry
from frontend.domain.errors import Unauthenticated
from frontend.domain.limits import Limits
from frontend.domain.principal import Principal
from frontend.services.keys.authentication import ApiKeyService
from frontend.services.keys.management import USUAL_SCOPES
from frontend.services.keys.pepper import read_pepper
from tests.support.database import opened
from tests.support.records import EVERYTHING


def hermes2(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from deploy.launcher.cli import main; main()", *arguments],
        env={"HERMES2_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Callable[..., Result]]:
    """The same in this process, ten times as fast."""
    configured = structlog.get_config()
    runner = CliRunner(env={"HERMES2_HOME": str(tmp_path / "home")})
    yield lambda *arguments: runner.invoke(cli.hermes2, ["keys", *arguments])
    structlog.configure(**configured)


@asynccontextmanager
async def database_of(home: Path) -> AsyncIterator[SqlDatabase]:
    async with opened(database_url(settings.load({"HERMES2_HOME": str(home)}))) as database:
        yield database


async def stored(home: Path) -> tuple[list[ApiKey], list[AuditEntry]]:
    """Keys by creation, entries of the audit log the oldest first."""
    async with database_of(home) as database, database.reading() as uow:
        keys = (await uow.keys.page(None, EVERYTHING)).data
        return list(keys), (await uow.audit.page(None, before=None, limit=100))[::-1]


async def principal(home: Path, key: str) -> Principal | None:
    """Whom a service that starts now takes the key for."""
    async with database_of(home) as database:
        try:
            return await ApiKeyService("bootstrap", database, read_pepper(home / "pepper")).authenticate(
                f"Bearer {key}"
            )
        except Unauthenticated:
            return None


async def test_a_key_is_made_without_a_service(tmp_path: Path) -> None:
    """In a home that is not there yet: the key alone is printed, what it is goes to the other stream; it works."""
    home = tmp_path / "home"
    made = hermes2(home, "keys", "create", "--tenant", "acme", "--name", "notebook", "--profile", "concise")
    assert (made.returncode, made.stdout.count("\n")) == (0, 1)
    key = made.stdout.strip()
    assert key not in made.stderr
    assert "acme" in made.stderr
    assert await principal(home, key) == Principal(key[4:20], "acme", USUAL_SCOPES, "concise")
    keys, log = await stored(home)
    assert (keys[0].name, keys[0].created_by) == ("notebook", None)
    assert [(each.action, each.actor, each.target) for each in log] == [("key.created", "command-line", key[4:20])]


def test_a_key_is_made_with_all_that_it_may_do(tmp_path: Path, typed: Callable[..., Result]) -> None:
    """Scopes, limits, an end."""
    what = ["--scope", "chat", "--scope", "metrics", "--expires-in", "90d", "--requests-per-minute", "60"]
    made = typed("create", "--tenant", "a", *what, "--tokens-per-minute", "9", "--concurrency", "2")
    assert made.exit_code == 0
    (key,), _ = asyncio.run(stored(tmp_path / "home"))
    assert key.scopes == {"chat", "metrics"}
    assert key.limits == Limits(requests_per_minute=60, tokens_per_minute=9, concurrency=2)
    assert key.expires_at == key.created_at + 90 * 86_400


async def test_a_key_is_made_beside_a_running_service(sqlite_database: SqlDatabase, tmp_path: Path) -> None:
    """Which knows it at once."""
    service = ApiKeyService("bootstrap", sqlite_database, read_pepper(tmp_path / "pepper"))
    made = hermes2(tmp_path, "keys", "create", "--tenant", "acme")
    assert (await service.authenticate(f"Bearer {made.stdout.strip()}")).tenant == "acme"


def test_a_key_is_rotated_and_revoked(tmp_path: Path, typed: Callable[..., Result]) -> None:
    """The new key alone is printed; until when the old one works goes to the other stream, as all that is said."""
    home = tmp_path / "home"
    old = typed("create", "--tenant", "acme", "--scope", "chat").stdout.strip()
    rotated = typed("rotate", old[4:20], "--overlap", "1h", "--expires-in", "30d")
    new = rotated.stdout.strip()
    assert (rotated.exit_code, rotated.stdout.count("\n")) == (0, 1)
    assert re.search(rf"{old[4:20]} works until \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", rotated.stderr)
    first, second = asyncio.run(stored(home))[0]
    assert first.expires_at is not None
    if first.id != old[4:20]:  # made within one second, they stand in the order of their ids
        first, second = second, first
    assert (first.expires_at, first.replaced_by) == (second.created_at + 3600, new[4:20])
    assert second.expires_at == second.created_at + 30 * 86_400
    assert [asyncio.run(principal(home, key)) is not None for key in (old, new)] == [True, True]
    revoked = typed("revoke", old[4:20])
    assert (revoked.exit_code, revoked.stdout) == (0, "")
    assert "is revoked" in revoked.stderr
    assert [asyncio.run(principal(home, key)) is not None for key in (old, new)] == [False, True]
    actions = [each.action for each in asyncio.run(stored(home))[1]]
    assert actions == ["key.created", "key.rotated", "key.created", "key.revoked"]


def test_keys_are_listed(typed: Callable[..., Result]) -> None:
    """As a table, or one JSON object a line; also those that have ended, no secret, nothing that moves a cursor."""
    key = typed("create", "--tenant", "acme", "--name", "a\x1b[2Jb", "--concurrency", "3").stdout.strip()
    typed("create", "--tenant", "other", "--expires-in", "1h")
    typed("revoke", key[4:20])
    head, *table = typed("list").stdout.splitlines()
    of_acme, of_other = sorted(table, key=lambda line: line.split()[1])
    assert head.split()[:2] == ["ID", "TENANT"]
    assert of_acme.split()[:2] == [key[4:20], "acme"]
    assert ("revoked" in of_acme, "3 at once" in of_acme, "active" in of_other) == (True, True, True)
    assert "\x1b" not in of_acme
    listed = typed("list", "--json", "--tenant", "acme").stdout
    (row,) = map(json.loads, listed.splitlines())
    assert (row["id"], row["status"], row["limits"]["concurrency"]) == (key[4:20], "revoked", 3)
    assert "digest" not in row
    assert key[21:64] not in of_acme + listed


@pytest.mark.parametrize(
    "arguments",
    [
        ("rotate", "hm2_0123456789abcdef_secret"),
        ("revoke", "hm2_0123456789abcdef_secret"),
        ("rotate", "0" * 16, "--overlap", "soon"),
        ("create", "--tenant", "a", "--scope", "root"),
        ("create", "--tenant", "a", "--concurrency", "0"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(
    tmp_path: Path, typed: Callable[..., Result], arguments: tuple[str, ...]
) -> None:
    """With status 2, as usual; a whole key in the place of its id is not repeated."""
    failed = typed(*arguments)
    assert (failed.exit_code, failed.stdout) == (2, "")
    assert "secret" not in failed.stderr
    assert not (tmp_path / "home").exists()


def test_an_unknown_key_is_said_to_be_one(typed: Callable[..., Result]) -> None:
    """As a problem, which is told in one line."""
    for action in ("rotate", "revoke"):
        failed = typed(action, "0" * 16)
        assert failed.stdout == ""
        assert isinstance(failed.exception, Problem)
        assert "No API key found" in str(failed.exception)


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (["--tenant", "Acme Inc."], {}, "A tenant is called by"),
        (["--tenant", "acme", "--profile", "nope"], {}, "There is no profile 'nope'"),
        (["--tenant", "acme"], {"HERMES2_SQL_URL": "mysql://x"}, "sql.url (HERMES2_SQL_URL)"),
        (["--tenant", "acme"], {"HERMES2_SQL_URL": "postgresql://u:hidden@127.0.0.1:9/x"}, "does not answer"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], variables: dict[str, str], says: str) -> None:
    """On the stream for errors; no key, no traceback, no password."""
    failed = hermes2(tmp_path, "keys", "create", *arguments, **variables)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert says in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("hermes2: ")
    assert "Traceback" not in failed.stderr
    assert "hidden" not in failed.stderr
