"""What the service's connection to the real Valkey may do: its own commands on its own keys, and nothing else."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import valkey.asyncio
from valkey.exceptions import ResponseError

from deploy.launcher.valkey import ALLOWED
from frontend.settings import ROOT
from tests.support.valkey import Server

FORBIDDEN: list[tuple[str, ...]] = [
    *(
        ("CONFIG", "GET", "*"),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("ACL", "LIST"),
        ("ACL", "SETUSER", "default", "+@all"),
    ),
    *(("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("SCAN", "0"), ("RANDOMKEY",), ("MONITOR",), ("SHUTDOWN", "NOSAVE")),
    *(("EVAL", "return 1", "0"), ("SCRIPT", "LOAD", "return 1"), ("FUNCTION", "FLUSH"), ("FUNCTION", "DUMP")),
    *(("DEBUG", "SLEEP", "0"), ("MODULE", "LOAD", "/tmp/x.so"), ("REPLICAOF", "127.0.0.1", "1")),  # noqa: S108  # not made
    *(
        ("SAVE",),
        ("CLIENT", "LIST"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("SUBSCRIBE", "x"),
        ("MIGRATE", "h", "1", "k", "0", "1"),
    ),
    *(("GET", "another"), ("SET", "another", "1"), ("DEL", "another")),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("v") / "valkey.sock")
    yield running
    running.end()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[valkey.asyncio.Valkey]:
    await server.answers()
    async with valkey.asyncio.Valkey.from_url(server.url) as connected:
        yield connected


@pytest.mark.parametrize("command", FORBIDDEN, ids=" ".join)
async def test_a_command_that_is_not_needed_is_refused(client: valkey.asyncio.Valkey, command: tuple[str, ...]) -> None:
    """And the connection goes on."""
    with pytest.raises(ResponseError, match=r"(?i)permission|not allowed"):
        await client.execute_command(*command)  # type: ignore[no-untyped-call]
    assert await client.ping()


def test_the_socket_is_its_owners(server: Server) -> None:
    """No other user can connect."""
    assert Path(server.url.removeprefix("unix://")).stat().st_mode & 0o077 == 0


def test_every_command_of_the_functions_is_allowed() -> None:
    """They run with the rights of the connection that calls them."""
    called = set(re.findall(r"server\.call\('([A-Z]+)'", (ROOT / "frontend/valkey/limiter.lua").read_text()))
    assert called
    assert {f"+{each.lower()}" for each in called} <= set(ALLOWED)
