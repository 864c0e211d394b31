"""What spans cost a request: code without any, with none exported, and exporting to a collector.

The frontend in this process, its ports without a network: HTTP and gRPC are left out, and so is most of what a request costs
in truth, so that its spans have a larger share here. CPU time, not wall time: other work on the machine disturbs it less.

"Without" is the application without its wrapper, and with nothing behind `span` and `start`. It takes turns with "not
exported" request by request, and medians are compared: what is to be seen is less than what a machine's speed changes from one
second to the next. Exporting has threads of its own; it takes turns with "not exported" in blocks, and what it sends is sent
within its block.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
from litestar.types import ASGIApp
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from frontend import settings as settings_module
from frontend.http.access_log import AccessLog
from frontend.http.tracing import Tracing
from frontend.observability import logging, otel, tracing
from perf import machine
from perf.in_process import TOKENS, application, ask, scope_of
from perf.service import free_ports

Say = Callable[[str], None]
Way = Literal["without", "off", "on"]
CALLS = 100_000
SINK = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print("ready", flush=True)
server.serve_forever()
"""
"""A collector in a process of its own, whose time is not counted."""


class Workload(msgspec.Struct, frozen=True):
    name: str
    body: Mapping[str, object]


MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France, and what is it known for?"},
]
ASKED = {"model": "hermes-2", "messages": MESSAGES, "max_tokens": TOKENS}
WORKLOADS = (
    Workload("a reply as a whole", ASKED),
    Workload(f"a stream of {TOKENS} tokens", ASKED | {"stream": True}),
)


class Round(msgspec.Struct, frozen=True):
    """CPU microseconds of a request."""

    without_us: float
    off_us: float
    """Between those without."""
    off_block_us: float
    on_block_us: float


class Found(msgspec.Struct, frozen=True, kw_only=True):
    rounds: Mapping[str, Sequence[Round]]
    """By workload."""
    spans: Mapping[str, int]
    """A request's, by workload."""
    step_us: float
    """A step that is not recorded: asking for its span, entering it, an attribute, leaving it."""
    wrapper_us: float
    """Around a request that is not recorded, and whose client sent a trace."""


async def measure(model: Path, rounds: int, requests: int, say: Say) -> Found:
    """`requests`: of each way in a round."""
    found: dict[str, list[Round]] = defaultdict(list)
    spans: dict[str, int] = {}
    logging.configure(settings_module.LogSettings(level="error"))
    async with application(model) as app:
        bare, wrapped = AccessLog(app), AccessLog(Tracing(app))
        with provider() as exporting:
            for number in range(-1, rounds):
                for workload in WORKLOADS:
                    body = msgspec.json.encode(workload.body)
                    gc.collect()
                    without_us, off_us = await in_turns(bare, wrapped, body, requests)
                    ways: tuple[Way, ...] = ("off", "on") if number % 2 else ("on", "off")
                    blocks = {way: await block(way, wrapped, body, requests, exporting) for way in ways}
                    if number >= 0:  # the first is to warm up
                        found[workload.name].append(Round(without_us, off_us, blocks["off"], blocks["on"]))
                say(f"round {number + 1} of {rounds}")
        for workload in WORKLOADS:
            spans[workload.name] = await counted(wrapped, msgspec.json.encode(workload.body))
    return Found(rounds=found, spans=spans, step_us=step_us(), wrapper_us=await wrapper_us())


async def in_turns(bare: ASGIApp, wrapped: ASGIApp, body: bytes, requests: int) -> tuple[float, float]:
    """CPU microseconds of a request, without and not exported; medians. Of the loop's thread: no other works for these."""
    used_us: dict[Way, list[float]] = {"without": [], "off": []}
    for number in range(2 * requests):
        way: Way = "off" if number % 2 else "without"
        with switched(way, None):
            before = time.thread_time()
            await ask(wrapped if way == "off" else bare, body)
            used_us[way].append((time.thread_time() - before) * 1e6)
    return statistics.median(used_us["without"]), statistics.median(used_us["off"])


async def block(way: Way, app: ASGIApp, body: bytes, requests: int, exporting: TracerProvider) -> float:
    """CPU microseconds of a request, of all threads together."""
    with switched(way, exporting):
        before = time.process_time()
        for _ in range(requests):
            await ask(app, body)
        if way == "on":
            exporting.force_flush()
        return (time.process_time() - before) / requests * 1e6


@contextmanager
def switched(way: Way, exporting: TracerProvider | None) -> Iterator[None]:
    named = tracing.span, tracing.start
    if way == "without":
        tracing.span = tracing.start = nothing
    elif way == "on":
        assert exporting is not None
        tracing.PROCESS.tracer = otel.OtelTracer(exporting)
    try:
        yield
    finally:
        tracing.span, tracing.start = named
        tracing.PROCESS.tracer = None


def nothing(name: str, *, calls: bool = False) -> tracing.Span:
    return tracing.NOTHING


@contextmanager
def provider() -> Iterator[TracerProvider]:
    """It exports to a collector in a process of its own, whose time is not counted."""
    (port,) = free_ports(1)
    with subprocess.Popen([sys.executable, "-c", SINK, str(port)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
        exporting = otel.open_provider(["otlp/http"], "perf")
        try:
            yield exporting
        finally:
            otel.close_provider(exporting)
            process.kill()


async def counted(app: ASGIApp, body: bytes) -> int:
    """How many spans a request has."""
    kept = InMemorySpanExporter()
    recording = TracerProvider(shutdown_on_exit=False)
    recording.add_span_processor(SimpleSpanProcessor(kept))
    with switched("on", recording):
        await ask(app, body)
    return len(kept.get_finished_spans())


def step_us() -> float:
    before = time.process_time()
    for _ in range(CALLS):
        with tracing.span("step") as span:
            span.set("hermes2.count", 1)
    return (time.process_time() - before) / CALLS * 1e6


async def wrapper_us() -> float:
    """Medians of alternating blocks, with and without it around an application that does nothing."""

    async def empty(scope: Any, receive: Any, send: Any) -> None:
        """Its request is answered by nobody."""

    wrapped, scope = Tracing(empty), scope_of(b"")
    used_us: dict[bool, list[float]] = {True: [], False: []}
    for number in range(200):
        app: Any = wrapped if number % 2 else empty
        before = time.process_time()
        for _ in range(CALLS // 200):
            await app(scope, None, None)
        used_us[app is wrapped].append((time.process_time() - before) / (CALLS // 200) * 1e6)
    return statistics.median(used_us[True]) - statistics.median(used_us[False])


def report(found: Found, rounds: int, requests: int) -> str:
    """As Markdown."""
    how = (
        f"`python -m perf tracing` on {machine.describe()}: {rounds} rounds of {requests} requests each way, in process, with an"
        " engine that has its words ready; no HTTP, no gRPC, no model. CPU microseconds of a request; medians of the rounds,"
        " with the quartiles of shares."
    )
    lines = [
        "# What spans cost",
        "",
        how,
        "",
        "| request | without | not exported | share | the same by parts | spans | exported, more | a span |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, each in found.rounds.items():
        without_us, off_us = (
            statistics.median(getattr(one, field) for one in each) for field in ("without_us", "off_us")
        )
        more_us = statistics.median(one.on_block_us - one.off_block_us for one in each)
        spans = found.spans[name]
        parts_us = found.wrapper_us + (spans - 1) * found.step_us
        lines.append(
            f"| {name} | {without_us:.0f} µs | {off_us:.0f} µs | {shares(each)} | {100 * parts_us / without_us:.2f} % | {spans} |"
            f" {more_us:.0f} µs | {more_us / spans:.0f} µs |"
        )
    parts = (
        f"By parts: {found.wrapper_us:.2f} µs around the request, and {found.step_us:.2f} µs for each step that is not recorded,"
        " measured alone."
    )
    return "\n".join([*lines, "", parts, ""])


def shares(rounds: Sequence[Round]) -> str:
    more = [100 * (each.off_us / each.without_us - 1) for each in rounds]
    first, middle, third = statistics.quantiles(more, n=4)
    return f"{middle:+.1f} % ({first:+.1f} to {third:+.1f})"
