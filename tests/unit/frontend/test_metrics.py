"""One scrape: who answers, what is left out, how long it may take, and what several processes make of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from frontend.domain.errors import Unavailable
from frontend.domain.storage import Database
from frontend.observability import build, metrics
from frontend.services.asking import Asking
from frontend.services.health import HealthService
from frontend.services.metrics import MetricsService
from frontend.settings import ROOT
from frontend.triton.server_metrics import TritonMetrics
from frontend.valkey.breaker import REST_S, Breaker
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.engine import FakeEngine
from tests.fakes.hot_state import FakeHotState

RUNS = {"model": "smollm2-135m", "engine": "scripted"}
OF_TRITON = "# TYPE nv_cpu_utilization gauge\nnv_cpu_utilization 0.5\n"


async def of_triton() -> str:
    return OF_TRITON


async def no_triton() -> str:
    raise Unavailable("Triton shows no metrics.")


class Hung(FakeEngine):
    async def check(self) -> None:
        await asyncio.sleep(60)


def service(
    database: Database,
    engine: FakeEngine | None = None,
    state: FakeHotState | None = None,
    embedder: FakeEmbedder | None = None,
    triton: Callable[[], Awaitable[str]] | None = of_triton,
) -> MetricsService:
    engine = engine or FakeEngine()
    health = HealthService(engine, database, state or FakeHotState(), embedder)
    return MetricsService(health, engine, triton, RUNS, across_processes=False)


def up(text: str) -> dict[str, float]:
    (family,) = [f for f in text_string_to_metric_families(text) if f.name == "hermes2_dependency_up"]
    return {sample.labels["dependency"]: sample.value for sample in family.samples}


async def test_one_scrape_has_all(sqlite_database: Database) -> None:
    """The frontend's, the engine's, Triton's, what runs, and who answers; no family twice."""
    text = await service(sqlite_database, embedder=FakeEmbedder()).scrape()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {"hermes2_http_requests", "hermes2_tokens", "fake_running", "nv_cpu_utilization"} <= set(families)
    assert up(text) == dict.fromkeys(["engine", "embedder", "sql", "valkey", "triton"], 1)
    (info,) = families["hermes2_build_info"].samples
    assert info.labels == RUNS | {"version": build.VERSION, "python": build.PYTHON}
    announced = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(announced) == len(set(announced))


async def test_a_service_without_an_embedding_model_does_not_miss_it(sqlite_database: Database) -> None:
    """Nor one whose Triton nobody has named."""
    text = await service(sqlite_database, triton=None).scrape()
    assert up(text) == {"engine": 1, "sql": 1, "valkey": 1}


async def test_who_is_away_is_said(sqlite_database: Database) -> None:
    """The others are there all the same."""
    engine = FakeEngine()
    engine.healthy = False
    state, embedder = FakeHotState(alive=False), FakeEmbedder(error=Unavailable("Away."))
    text = await service(sqlite_database, engine, state, embedder, no_triton).scrape()
    assert up(text) == {"engine": 0, "embedder": 0, "sql": 1, "valkey": 0, "triton": 0}
    assert "hermes2_http_requests" in text
    assert "fake_running" not in text


async def test_who_hangs_costs_less_than_two_seconds(sqlite_database: Database) -> None:
    """All of them together, and the next scrape joins what is still being asked."""
    asked = 0

    async def hung() -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)
        return ""

    metrics_of = service(sqlite_database, Hung(), embedder=FakeEmbedder(hold=asyncio.Event()), triton=hung)
    async with metrics_of.running():
        started = time.monotonic()
        texts = await asyncio.gather(metrics_of.scrape(), metrics_of.scrape())
        assert time.monotonic() - started < 2.5  # on a busy machine; the bound itself is 1.8 s
    for text in texts:
        assert up(text) == {"engine": 0, "embedder": 0, "sql": 1, "valkey": 1, "triton": 0}
    assert asked == 1


async def test_an_answer_is_not_older_than_its_question() -> None:
    """What was given up on is asked anew once it has ended."""
    answer = asyncio.Event()

    async def ask() -> str:
        await answer.wait()
        return "now"

    asking = Asking(ask, 0.01)
    assert await asking.answer() is None
    answer.set()
    assert await asking.answer() == "now"
    await asking.close()


async def test_tritons_own_are_read_from_its_port() -> None:
    """As they stand there."""
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(OF_TRITON)}\r\n\r\n{OF_TRITON}".encode())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await TritonMetrics("127.0.0.1", port).read() == OF_TRITON
    assert heads[0].startswith(b"GET /metrics ")


@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n", b""]
)
async def test_what_is_not_triton_is_unavailable(reply: bytes) -> None:
    """Another status, another protocol, nothing at all; a port that is closed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Unavailable):
            await TritonMetrics("127.0.0.1", port).read()
    with pytest.raises(Unavailable):
        await TritonMetrics("127.0.0.1", port).read()


async def test_the_breaker_shows_itself() -> None:
    """1 from a command that failed to one that did not."""
    now = 0.0
    breaker = Breaker(0.5, lambda: now)

    async def fine() -> bool:
        return True

    async def broken() -> bool:
        raise OSError

    seen = []
    for command in (fine, broken, fine):
        now += 2 * REST_S
        await breaker.run(command, False)
        seen.append(REGISTRY.get_sample_value("hermes2_valkey_breaker_open"))
    assert seen == [0, 1, 0]


COUNTING = """
import sys
from frontend.observability import metrics
metrics.COMPLETED.inc(2)
metrics.GENERATIONS.inc()
metrics.FIRST_TOKEN.labels("/v1/chat/completions").observe(0.2)
if sys.argv[1:]:
    print(metrics.render(across_processes=True))
"""


def test_what_several_processes_count_is_one_sum(tmp_path: Path) -> None:
    """Also of one that has ended; but nothing is open in it any more."""
    environment = os.environ | {metrics.OF_PROCESSES: str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", COUNTING], env=environment, check=True)
    told = subprocess.run(
        [sys.executable, "-c", COUNTING, "tell"], env=environment, check=True, capture_output=True, text=True
    )
    assert 'hermes2_generations_total{outcome="completed"} 4.0' in told.stdout
    assert 'hermes2_time_to_first_token_seconds_count{route="/v1/chat/completions"} 2.0' in told.stdout
    assert "hermes2_generations_open 1.0" in told.stdout


def test_the_version_is_the_project_s() -> None:
    """It is written twice, because an image holds no package of it."""
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == build.VERSION
