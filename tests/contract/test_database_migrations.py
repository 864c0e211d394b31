"""frontend/db/migrations on SQLite and on a real PostgreSQL: what was stored before is there afterwards, and of use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from frontend.db import migrate
from frontend.db.engines import sqlite_url
from frontend.domain.limits import Limits
from frontend.domain.principal import Scope
from tests.support.database import PostgresServer, execute, opened
from tests.support.records import EVERYTHING, NOW

FIVE: frozenset[Scope] = frozenset({"chat", "conversations", "models", "retrieval:read", "retrieval:write"})
upgrade = command.upgrade


@pytest.fixture(params=["sqlite", "postgres"])
async def former_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Of a database that has nothing in it, not even tables."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "hermes2.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    server.psql("CREATE DATABASE former")
    yield server.get_uri("former")
    server.psql("DROP DATABASE former WITH (FORCE)")


async def migrated_to(revision: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def upgrade_to(config: Config, _: str) -> None:
        upgrade(config, revision)

    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", upgrade_to)
        await asyncio.to_thread(migrate.migrate, url)


async def test_keys_of_before_may_do_what_they_could(former_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third migration: keys with the one scope of that time get those that nothing checked; others stay."""
    await migrated_to("0002", former_url, monkeypatch)
    await execute(former_url, "INSERT INTO tenants (name, created_at) VALUES ('a', 1)")
    for digit, scopes in (("0", '["chat"]'), ("1", '["admin"]')):
        await execute(
            former_url,
            "INSERT INTO api_keys (id, tenant, name, digest, scopes, created_at)"  # noqa: S608  # no input
            f" VALUES ('{digit * 16}', 'a', '', '', '{scopes}', 1)",
        )
    async with opened(former_url) as database, database.reading() as uow:
        keys = [await uow.keys.find(digit * 16) for digit in "01"]
    assert [key and key.scopes for key in keys] == [FIVE, {"admin"}]
    assert {key and key.limits for key in keys} == {Limits()}


async def test_what_was_stored_before_is_found_by_its_metadata(
    former_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth migration, which reads the rows a few at a time."""
    await migrated_to("0003", former_url, monkeypatch)
    rows = [
        f"""('{tenant}', 'c{number}', '{{"number": "{number}", "tens": "{number // 10}"}}', {number}, 1, '{{}}', 0, 0, 0, 0, 0)"""
        for tenant in "ab"
        for number in range(1100)
    ]
    rows.append("""('c', 'c1', '{}', 1, 1, '{}', 0, 0, 0, 0, 0)""")
    await execute(
        former_url,
        "INSERT INTO conversations (tenant, id, metadata, created_at, last_active_at, context, trim_upto,"  # noqa: S608
        f" trim_summarised_upto, head, version, item_count) VALUES {', '.join(rows)}",
    )
    await execute(
        former_url,
        "INSERT INTO chat_completions (tenant, id, model, created_at, metadata, body, messages)"
        """ VALUES ('a', 'k1', 'm', 1, '{"number": "1"}', '', '')""",
    )
    async with opened(former_url) as database, database.reading() as uow:
        one = await uow.conversations.page("b", EVERYTHING, {"number": "1033", "tens": "103"}, NOW)
        ten = await uow.conversations.page("a", EVERYTHING, {"tens": "99"}, NOW)
        completions = await uow.completions.page("a", EVERYTHING, model=None, metadata={"number": "1"})
    assert [each.id for each in one.data] == ["c1033"]
    assert [each.id for each in ten.data] == [f"c{number}" for number in range(990, 1000)]
    assert [each.id for each in completions.data] == ["k1"]
