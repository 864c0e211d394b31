"""frontend/observability/tracing and frontend/http/tracing: what is recorded of a request, with the SDK's exporter in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio, Sampler
from opentelemetry.trace import StatusCode

from frontend.domain.errors import Unavailable
from frontend.domain.generation import GenerationRequest, Sampling
from frontend.http.trace_context import from_client
from frontend.http.tracing import Tracing
from frontend.observability import otel, tracing
from frontend.services.limits.queue import FairQueue
from frontend.settings import ROOT
from frontend.triton.generation_span import traced
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for

CHAT = "/v1/chat/completions"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
UNSAMPLED = f"00-{TRACE}-00f067aa0ba902b7-00"


class Recording(InMemorySpanExporter):
    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.get_finished_spans() if span.name == name]
        return found

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.get_finished_spans()]


@pytest.fixture
def recording() -> Iterator[Recording]:
    with recorded() as exporter:
        yield exporter


@contextmanager
def recorded(sampler: Sampler | None = None) -> Iterator[Recording]:
    exporter, provider = Recording(), TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.PROCESS.tracer = otel.OtelTracer(provider)
    try:
        yield exporter
    finally:
        tracing.PROCESS.tracer = None


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
async def client(engine: FakeEngine, smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with traced_client(engine, smollm2) as http:
        yield http


@asynccontextmanager
async def traced_client(engine: FakeEngine, model: Path) -> AsyncIterator[httpx.AsyncClient]:
    """With what `asgi` puts between the access log and the application."""
    async with client_for(engine, model) as http:
        access_log = cast(Any, http._transport).app
        access_log._app = Tracing(access_log._app)
        yield http


def chat(**fields: object) -> dict[str, object]:
    return {"model": "hermes-2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2} | fields


def span_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.span_id:016x}"


def trace_id(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"{span.context.trace_id:032x}"


async def test_a_request_is_a_span(client: httpx.AsyncClient, engine: FakeEngine, recording: Recording) -> None:
    """Named by its route, below the client's span, and what the engine is told is this span's own context."""
    reply = await client.post(CHAT, json=chat(), headers={"traceparent": PARENT, "tracestate": "vendor=1"})
    assert reply.status_code == 200
    span = recording.named(f"POST {CHAT}")
    assert trace_id(span) == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "00f067aa0ba902b7"
    assert span.parent.trace_state.get("vendor") == "1"
    attributes = span.attributes or {}
    expected = {
        "http.request.method": "POST",
        "http.route": CHAT,
        "http.response.status_code": 200,
        "hermes2.tenant": "default",
        "hermes2.key_id": "bootstrap",
        "hermes2.request_id": reply.headers["x-request-id"],
        "gen_ai.usage.output_tokens": 2,
        "gen_ai.usage.input_tokens": reply.json()["usage"]["prompt_tokens"],
    }
    assert expected.items() <= attributes.items()
    assert engine.requests[0].traceparent == f"00-{TRACE}-{span_id(span)}-01"


async def test_without_a_client_s_trace_one_begins(
    client: httpx.AsyncClient, engine: FakeEngine, recording: Recording
) -> None:
    """Also where the client's header is not valid."""
    for headers in ({}, {"traceparent": "nonsense"}):
        await client.post(CHAT, json=chat(), headers=headers)
    first, second = (span for span in recording.get_finished_spans() if span.name == f"POST {CHAT}")
    assert first.parent is None
    assert trace_id(first) != trace_id(second)
    assert engine.requests[0].traceparent == f"00-{trace_id(first)}-{span_id(first)}-01"


async def test_the_span_of_a_stream_ends_with_it(client: httpx.AsyncClient, recording: Recording) -> None:
    """Not when its head has left; and no span is made for what is sent."""
    async with client.stream("POST", CHAT, json=chat(stream=True)) as reply:
        text = await reply.aread()
    assert b"[DONE]" in text
    attributes = recording.named(f"POST {CHAT}").attributes or {}
    assert attributes["gen_ai.usage.output_tokens"] == 2
    assert len(recording.names) < 6


async def test_the_steps_of_a_turn(client: httpx.AsyncClient, recording: Recording) -> None:
    """Reading the conversation, building its prompt, taking and storing the turn: each a child of the request's span."""
    conversation = (await client.post("/v1/conversations", json={})).json()["id"]
    recording.clear()
    await client.post(CHAT, json=chat(conversation=conversation))
    whole = recording.named(f"POST {CHAT}")
    steps = ["conversation.read", "prompt.build", "turn.begin", "turn.store"]
    assert [name for name in recording.names if name in steps] == steps
    for name in steps:
        step = recording.named(name)
        assert step.parent is not None
        assert f"{step.parent.span_id:016x}" == span_id(whole)
        assert (step.start_time or 0) >= (whole.start_time or 0)
    assert (recording.named("prompt.build").attributes or {})["hermes2.prompt_tokens"]
    assert (recording.named("conversation.read").attributes or {})["gen_ai.conversation.id"] == conversation


@pytest.mark.parametrize(
    ("path", "name", "error", "status"),
    [
        ("/v1/conversations/conv_nobody", "GET /v1/conversations/{conversation_id}", "not_found", StatusCode.UNSET),
        ("/nowhere/canary", "GET", "not_found", StatusCode.UNSET),
    ],
)
async def test_refusals(
    client: httpx.AsyncClient, recording: Recording, path: str, name: str, error: str, status: StatusCode
) -> None:
    """They say what was wrong by its code, are no failure of the service, and never show the path."""
    assert (await client.get(path)).status_code == 404
    (span,) = (each for each in recording.get_finished_spans() if each.kind.name == "SERVER")
    assert span.name == name
    assert (span.attributes or {})["error.type"]
    assert span.status.status_code is status
    assert "nobody" not in span.to_json()
    assert "canary" not in span.to_json()


async def test_a_failure_is_one(smollm2: Path, recording: Recording) -> None:
    """What is the service's own doing has the status of an error, and no message: that may quote what was sent."""
    async with traced_client(FakeEngine(error=Unavailable("canary")), smollm2) as http:
        assert (await http.post(CHAT, json=chat())).status_code == 503
    span = recording.named(f"POST {CHAT}")
    assert span.status.status_code is StatusCode.ERROR
    assert all("canary" not in each.to_json() for each in recording.get_finished_spans())


async def test_probes_are_no_spans(client: httpx.AsyncClient, recording: Recording) -> None:
    """They come every few seconds, and say nothing new."""
    for path in ("/health/live", "/health/ready", "/metrics"):
        await client.get(path)
    assert recording.names == []


async def test_what_is_not_sampled(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """A client that does not record its trace is not recorded here either, and the engine is told so; nor is one of those
    that the sampler leaves out. The trace goes on all the same."""
    with recorded(ParentBasedTraceIdRatio(0.0)) as recording:
        await client.post(CHAT, json=chat(), headers={"traceparent": UNSAMPLED})
        await client.post(CHAT, json=chat())
    assert recording.names == []
    first, second = (request.traceparent or "" for request in engine.requests)
    assert first.startswith(f"00-{TRACE}-")
    assert first.endswith("-00")
    assert second.endswith("-00")


async def test_off(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    """Without an exporter the engine is told of the client's trace, and of none where there is none."""
    await client.post(CHAT, json=chat(), headers={"traceparent": PARENT})
    await client.post(CHAT, json=chat())
    assert [request.traceparent for request in engine.requests] == [PARENT, None]
    assert tracing.span("step") is tracing.NOTHING
    assert tracing.start("step") is tracing.NOTHING


def test_off_imports_no_sdk() -> None:
    """The whole application without an exporter has not even loaded OpenTelemetry."""
    program = "import sys, frontend.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


async def test_waiting_for_a_place_is_a_step(recording: Recording) -> None:
    """Of those requests alone that have to wait."""
    queue = FairQueue(1, max_waiting=1, max_wait_s=10, wait_share=10)
    with tracing.server_span("request", PARENT, ""):
        async with queue.place("a", 1, 1):
            assert recording.names == []

            async def second() -> None:
                async with queue.place("b", 1, 1):
                    pass

            waiting = asyncio.create_task(second())
            await asyncio.sleep(0)
        await waiting
    assert recording.names == ["queue.wait", "request"]


REQUEST = GenerationRequest(
    prompt_ids=[1, 2, 3], sampling=Sampling(max_tokens=4), stream=True, cache_salt="", traceparent=PARENT
)


class TestGeneration:
    async def test_is_the_parent_of_the_engine_s(self, engine: FakeEngine, recording: Recording) -> None:
        """The engine is told the generation's own context. The first token is an event."""
        with tracing.server_span("request", PARENT, ""):
            async with aclosing(traced(REQUEST, engine.generate)) as deltas:
                assert len([delta async for delta in deltas]) == 4
        span = recording.named("generate")
        assert engine.requests[0].traceparent == f"00-{TRACE}-{span_id(span)}-01"
        assert [event.name for event in span.events] == ["first_token"]
        attributes = span.attributes or {}
        assert attributes["gen_ai.usage.output_tokens"] == 4
        assert attributes["gen_ai.usage.input_tokens"] == 3
        assert attributes["gen_ai.response.finish_reasons"] == ("length",)
        assert span.kind.name == "CLIENT"

    async def test_ends_when_it_is_left(self, engine: FakeEngine, recording: Recording) -> None:
        """By whoever closes it, in whatever task."""
        with tracing.server_span("request", PARENT, ""):
            deltas = traced(REQUEST, engine.generate)
            await anext(deltas)
        await asyncio.create_task(deltas.aclose())
        span = recording.named("generate")
        assert (span.attributes or {})["error.type"] == "cancelled"
        assert span.status.status_code is StatusCode.UNSET

    async def test_is_nobody_s_parent_here(self, engine: FakeEngine, recording: Recording) -> None:
        """What its reader does between two tokens are steps of the request, not of the generation."""
        with tracing.server_span("request", PARENT, "") as request:
            async with aclosing(traced(REQUEST, engine.generate)) as deltas:
                async for _ in deltas:
                    with tracing.span("other"):
                        pass
        others = [span for span in recording.get_finished_spans() if span.name == "other"]
        assert request.traceparent is not None
        assert {f"{each.parent.span_id:016x}" for each in others if each.parent} == {request.traceparent[36:52]}

    async def test_of_nobody_s_request(self, engine: FakeEngine, recording: Recording) -> None:
        """Work between the turns belongs to no request, and is not recorded."""

        async def work() -> None:
            async with aclosing(traced(REQUEST, engine.generate)) as deltas:
                assert [delta async for delta in deltas]

        with tracing.server_span("request", PARENT, ""):
            await asyncio.create_task(work(), context=tracing.outside())
        assert recording.names == ["request"]
        assert engine.requests[0].traceparent == PARENT

    async def test_that_fails(self, recording: Recording) -> None:
        """By its code."""
        engine = FakeEngine(error=Unavailable("canary"))
        with tracing.server_span("request", PARENT, ""), pytest.raises(Unavailable):
            async with aclosing(traced(REQUEST, engine.generate)) as deltas:
                await anext(deltas)
        span = recording.named("generate")
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "engine_unavailable"
        assert "canary" not in span.to_json()


@pytest.mark.parametrize(
    ("sent", "counts"),
    [
        ([PARENT], True),
        ([f"cc-{TRACE}-00f067aa0ba902b7-01"], True),
        ([f"ff-{TRACE}-00f067aa0ba902b7-01"], False),
        ([f"00-{'0' * 32}-00f067aa0ba902b7-01"], False),
        ([f"00-{TRACE}-{'0' * 16}-01"], False),
        ([PARENT.upper()], False),
        ([f"{PARENT}-more"], False),
        ([f" {PARENT}"], False),
        ([PARENT, PARENT], False),
        ([], False),
    ],
)
def test_which_headers_count(sent: list[str], counts: bool) -> None:
    """One that the specification calls valid; anything else is as good as none, and its tracestate with it."""
    headers = [(b"traceparent", each.encode()) for each in sent] + [(b"tracestate", b"a=1"), (b"tracestate", b"b=2")]
    assert from_client(headers) == ((sent[0], "a=1,b=2") if counts else (None, ""))
