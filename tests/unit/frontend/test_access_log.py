"""frontend/http/access_log on the whole frontend: one line a request, and what is counted with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import pytest_asyncio
import structlog
from prometheus_client import REGISTRY

from frontend.domain.errors import Unavailable
from frontend.http.access_log import AccessLog
from tests.fakes.embedder import FakeEmbedder
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.tenants import Visitor

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
pytestmark = pytest.mark.asyncio(loop_scope="module")
OF_REQUEST = {"method", "route", "status", "client", "request_id", "duration_ms", "event", "log_level"}
OF_KEY = {"tenant", "key_id"}
OF_GENERATION = {"model", "prompt_tokens", "cached_tokens", "completion_tokens", "queue_ms"}


def chat(**more: object) -> dict[str, object]:
    return {"model": "hermes-2", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4} | more


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(FakeEngine(), smollm2, embedder=FakeEmbedder()) as connected:
        yield connected


async def line_of(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> Mapping[str, Any]:
    with structlog.testing.capture_logs() as logs:
        await client.request(method, path, **more)
    (line,) = [each for each in logs if each["event"] == "request"]
    return line


def observed(name: str) -> tuple[float, float]:
    """Count and sum of a histogram for chats."""
    count, total = (REGISTRY.get_sample_value(f"{name}_{what}", {"route": CHAT}) or 0.0 for what in ("count", "sum"))
    return count, total


async def test_a_stream_has_all_fields(client: httpx.AsyncClient) -> None:
    """Those of the request, the key and the generation, and the time of its first token."""
    line = await line_of(client, "POST", CHAT, json=chat(stream=True), headers={"x-request-id": "mine-1"})
    assert set(line) - {"trace_id"} == OF_REQUEST | OF_KEY | OF_GENERATION | {"ttft_ms"}
    assert (line["method"], line["route"], line["status"], line["request_id"]) == ("POST", CHAT, 200, "mine-1")
    assert (line["model"], line["completion_tokens"]) == ("smollm2-135m", 4)
    assert 0 <= line["queue_ms"] <= line["ttft_ms"] <= line["duration_ms"]


async def test_the_trace_is_the_one_of_the_request_s_state() -> None:
    """Put there by whoever is inside."""

    async def traced(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["trace_id"] = TRACE
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    transport = httpx.ASGITransport(cast(Any, AccessLog(traced)))
    async with httpx.AsyncClient(transport=transport, base_url="http://hermes2") as http:
        line = await line_of(http, "GET", "/")
    assert (line["trace_id"], line["status"], line["route"]) == (TRACE, 204, "unmatched")
    assert set(line) == OF_REQUEST | {"trace_id"}


async def test_tokens_are_those_of_the_usage(client: httpx.AsyncClient) -> None:
    """Of every route that generates; of several prompts and choices together."""
    for path, body in {
        CHAT: chat(n=2),
        "/v1/completions": {"model": "hermes-2", "prompt": ["Paris is", "Rome is the"], "max_tokens": 3, "n": 2},
        RESPONSES: {"model": "hermes-2", "input": "Hello.", "max_output_tokens": 4},
        "/v1/responses/compact": {"model": "hermes-2", "input": "Hello."},
    }.items():
        with structlog.testing.capture_logs() as logs:
            usage = (await client.post(path, json=body)).json()["usage"]
        (line,) = [each for each in logs if each["event"] == "request"]
        assert set(line) == OF_REQUEST | OF_KEY | OF_GENERATION, path
        told = line["prompt_tokens"], line["completion_tokens"]
        assert told == (
            usage.get("prompt_tokens", usage.get("input_tokens")),
            usage.get("completion_tokens", usage.get("output_tokens")),
        ), path


async def test_embeddings_read(client: httpx.AsyncClient) -> None:
    """Their model and tokens; nothing of a generation."""
    with structlog.testing.capture_logs() as logs:
        reply = await client.post("/v1/embeddings", json={"model": "hermes-2-embedder", "input": ["one", "one two"]})
    (line,) = [each for each in logs if each["event"] == "request"]
    assert set(line) == OF_REQUEST | OF_KEY | {"model", "prompt_tokens"}
    assert (line["model"], line["prompt_tokens"]) == ("all-MiniLM-L6-v2", reply.json()["usage"]["prompt_tokens"])


async def test_embedded_tokens_are_counted(client: httpx.AsyncClient) -> None:
    """As the model reads them."""
    counter = "hermes2_tokens_total", {"kind": "embedding"}
    before = REGISTRY.get_sample_value(*counter) or 0.0
    reply = await client.post("/v1/embeddings", json={"model": "hermes-2-embedder", "input": ["one", "one two"]})
    assert (REGISTRY.get_sample_value(*counter) or 0.0) - before == reply.json()["usage"]["prompt_tokens"]


async def test_what_is_refused_has_a_line_too(client: httpx.AsyncClient) -> None:
    """With its error's code, and without what does not apply: no field is null."""
    for method, path, body, headers, status, error, fields in [
        ("GET", "/v1/models", None, {"authorization": ""}, 401, "invalid_api_key", set[str]()),
        ("GET", "/nothing", None, {}, 404, "unknown_url", set()),
        ("POST", CHAT, {"model": "other"}, {}, 400, "missing_required_parameter", OF_KEY),
        ("POST", CHAT, chat(model="other"), {}, 404, "model_not_found", OF_KEY),
        ("BREW", CHAT, None, {}, 405, "method_not_allowed", set()),
    ]:
        line = await line_of(client, method, path, json=body, headers=headers)
        assert (line["status"], line["error"]) == (status, error)
        assert set(line) == OF_REQUEST | {"error"} | fields, line
        assert line["method"] == ("other" if method == "BREW" else method)


async def test_what_fails_is_said(smollm2: Path) -> None:
    """Before the first token with its status, afterwards with the code of the error event, and what there was."""
    async with client_for(FakeEngine(error=Unavailable("Away.")), smollm2) as client:
        line = await line_of(client, "POST", CHAT, json=chat(stream=True))
        assert (line["status"], line["error"], line["completion_tokens"]) == (503, "engine_unavailable", 0)
        assert "ttft_ms" not in line
    async with client_for(FakeEngine(error=Unavailable("Away."), fail_after=3), smollm2) as client:
        line = await line_of(client, "POST", CHAT, json=chat(stream=True))
        assert (line["status"], line["error"], line["completion_tokens"]) == (200, "engine_unavailable", 3)
        assert "ttft_ms" in line


async def test_the_line_of_a_stream_comes_with_its_end(smollm2: Path) -> None:
    """Not with its head; a client that leaves is a 499 with what it was told."""
    hold = asyncio.Event()

    class Pausing(FakeEngine):
        async def _pause(self, position: int) -> None:
            if position == 2:
                await hold.wait()
            await asyncio.sleep(0)

    async with client_for(Pausing(), smollm2) as client:
        key = client.headers["authorization"].split()[1]
        visitor = Visitor(CHAT, chat(stream=True), key=key)
        with structlog.testing.capture_logs() as logs:
            visit = asyncio.create_task(visitor.visit(cast(Any, client._transport).app))
            await visitor.hears(" is")
            assert not [each for each in logs if each["event"] == "request"]
            visitor.left.set()
            await visit
        (line,) = [each for each in logs if each["event"] == "request"]
        assert (line["status"], line["completion_tokens"]) == (499, 2)
        assert line["ttft_ms"] <= line["duration_ms"]


async def test_first_tokens_are_observed_where_somebody_sees_them(client: httpx.AsyncClient) -> None:
    """Of streams alone, once each; a reply of one token has no pace."""
    names = "hermes2_time_to_first_token_seconds", "hermes2_inter_token_latency_seconds"
    before = [observed(name) for name in names]
    await client.post(CHAT, json=chat())
    assert [observed(name) for name in names] == before
    line = await line_of(client, "POST", CHAT, json=chat(stream=True))
    await client.post(CHAT, json=chat(stream=True, max_tokens=1))
    (first, first_s), (pace, pace_s) = (
        (count - had, total - had_s) for (count, total), (had, had_s) in zip(map(observed, names), before, strict=True)
    )
    assert (first, pace) == (2, 1)
    assert first_s >= line["ttft_ms"] / 1e3 - 1e-4
    assert 0 < pace_s <= line["duration_ms"] / 1e3 / 3


async def test_machines_that_ask_every_few_seconds_are_no_news(client: httpx.AsyncClient) -> None:
    """Probes and scrapes are told at `debug`, unless they fail."""
    for path in ("/health/live", "/health/ready", "/metrics"):
        assert (await line_of(client, "GET", path))["log_level"] == "debug"
    assert (await line_of(client, "GET", "/metrics", headers={"authorization": ""}))["log_level"] == "info"


async def test_a_background_response_has_a_line_of_its_own(client: httpx.AsyncClient) -> None:
    """When it ends: its request's line came before anything was known."""
    body = {"model": "hermes-2", "input": "Hello.", "max_output_tokens": 4, "background": True}
    with structlog.testing.capture_logs() as logs:
        made = (await client.post(RESPONSES, json=body)).json()
        async with asyncio.timeout(10):
            while not (ended := [each for each in logs if each["event"] == "background_response"]):
                await asyncio.sleep(0.01)
    (line,) = ended
    asked = next(each for each in logs if each["event"] == "request")
    assert (line["response"], line["tenant"], line["outcome"]) == (made["id"], "default", "incomplete")
    assert (line["model"], line["completion_tokens"]) == (asked["model"], 4)
    assert set(line) == OF_GENERATION | {"response", "tenant", "outcome", "duration_ms", "event", "log_level"}


async def test_other_events_of_a_request_have_its_id(smollm2: Path) -> None:
    """A failure's traceback is found by the id that the client was told."""
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    try:
        async with client_for(FakeEngine(error=cast(Any, ZeroDivisionError("broken"))), smollm2) as client:
            told = (await client.post(CHAT, json=chat())).headers["x-request-id"]
    finally:
        structlog.reset_defaults()
    events = [each["event"] for each in capture.entries if each.get("request_id") == told]
    assert events == ["unexpected_error", "request"]
