"""Fixtures for all tests. The stacks are started once per session, each only if a test asks for it."""

from __future__ import annotations

import contextlib
import functools
import gc
import gzip
import json
import os
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling

from deploy.launcher import embedder, models
from deploy.launcher.family import AUTOGROUP
from frontend import settings
from frontend.db.database import SqlDatabase
from frontend.db.engines import sqlite_url
from tests.support import llama
from tests.support.database import PostgresServer, empty, opened, postgres_server
from tests.support.otlp import Collector, collector
from tests.support.stack import MODELS, Stack

UNIT = "tests/unit/"
"""How the ids of those tests begin that need no stack."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, object, object]:
    """No collection of garbage while a failure is told: a finaliser that fails then parses source while source is being
    parsed, which ends CPython 3.11 in "AST constructor recursion depth mismatch" (gh-106905), and the run with it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


class StacksTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """With two processes (`make test`) one of them has the stacks and the servers, and the other the unit tests."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(UNIT) else "stacks"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> StacksTogether:
    return StacksTogether(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and item.nodeid.startswith(UNIT):
        stand_back()


@functools.cache
def stand_back() -> None:
    """Behind the stacks of the other process: an engine that compiles would wait for every unit test. In a session of its own,
    as niceness counts within one alone where the kernel shares cores between sessions."""
    os.nice(10)
    with contextlib.suppress(OSError):  # a kernel without it
        os.setsid()
        AUTOGROUP.write_text("19")


@pytest.fixture(scope="session")
def engine_environment() -> Path:
    return settings.load().engine.environment


@pytest.fixture(scope="session")
def smollm2(engine_environment: Path) -> Path:
    """The prepared default model."""
    return models.prepare("smollm2-135m", MODELS, engine_environment, print)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The embedding model's folder."""
    folder = embedder.folder(settings.load())
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def llama_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer random Llama with the tokenizer of a Hermes-2-Pro-Llama-3, as a user's folder."""
    return llama.write(tmp_path_factory.mktemp("models") / "hermes-2-pro-llama-3-tiny")


@pytest.fixture(scope="session")
def tiny_llama(llama_source: Path, tmp_path_factory: pytest.TempPathFactory, engine_environment: Path) -> Path:
    """The same, prepared."""
    return models.prepare(str(llama_source), tmp_path_factory.mktemp("prepared"), engine_environment, print)


@pytest.fixture(scope="session")
def spans() -> Iterator[Collector]:
    """Where the real service sends its spans."""
    with collector() as running:
        yield running


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, spans: Collector) -> Iterator[Stack]:
    """The real service: Triton, vLLM, Valkey, the default model, as this machine's engine profile has it.

    Patient, because other tests start a second engine on the same two cores beside it. Spans are recorded of those requests
    only that come with a trace which is: other tests do not pay for them.
    """
    real = Stack(tmp_path_factory.mktemp("real"), ENGINE_PROFILE="auto", ENGINE_HANG_TIMEOUT_S=60)
    real.environment |= spans.environment(OTEL_TRACES_SAMPLER="parentbased_always_off")
    with real as running:
        yield running


@pytest.fixture(scope="session")
def scripted_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same with the scripted engine behind its interface in hermes2; everything else is real."""
    with Stack(
        tmp_path_factory.mktemp("scripted"), ENGINE_BACKEND="scripted", ENGINE_SCRIPTED_TOKEN_INTERVAL_MS=5
    ) as running:
        yield running


@pytest.fixture(scope="session")
def replying_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The scripted engine with the replies that the programs of tests/clients ask for."""
    with Stack(
        tmp_path_factory.mktemp("replying"),
        ENGINE_BACKEND="scripted",
        ENGINE_SCRIPTED_REPLIES=settings.ROOT / "tests/clients/replies.json",
        ENGINE_SCRIPTED_TOKEN_INTERVAL_MS=2,
    ) as running:
        yield running


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[SqlDatabase]:
    """An empty database in a file."""
    async with opened(sqlite_url(tmp_path / "hermes2.db")) as database:
        yield database


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real one, for the whole session; `database_url` empties it for each test."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database, on each of the two kinds."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "hermes2.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    await empty(server.get_uri())
    return server.get_uri()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[SqlDatabase]:
    async with opened(database_url) as database:
        yield database


@pytest.fixture(scope="session")
def openai_spec() -> dict[str, Any]:
    """OpenAI's own specification, where HERMES2_CONTRACTS_DIR has it."""
    folder = os.environ.get("HERMES2_CONTRACTS_DIR")
    if not folder:
        pytest.skip("HERMES2_CONTRACTS_DIR is not set: OpenAI's specification is not part of this repository")
    path = next(Path(folder).glob("openai-openapi-*.json.gz"))
    spec: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return spec
