"""OpenTelemetry's SDK behind tracing.py, set up from its standard environment variables. Imported only where spans are exported.

Nothing here can hold up a request: spans go into a bounded queue, and a thread of the SDK's sends them. What does not fit, or
cannot be sent, is lost, and the log says so once a minute.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from frontend.observability.trace_exporters import Exporter
from frontend.observability.tracing import CANCELLED, CURRENT, Span, Value, name_of

log = structlog.get_logger("hermes2.tracing")
NAME = "hermes2-frontend"
FLUSH_S = 2.0
"""How long the end of the process waits for spans to be sent."""
COMPLAINTS_S = 60.0
"""The SDK's own complaints are logged at most so often."""
MOST_CHARS = 300
"""Of such a complaint."""
PROPAGATOR = TraceContextTextMapPropagator()


class Recorded:
    """A span of the SDK. One that was not sampled is nobody's parent: nothing is recorded below it."""

    __slots__ = ("_outer", "otel", "recording", "traceparent")

    def __init__(self, otel: trace.Span) -> None:
        context = otel.get_span_context()
        self.otel = otel
        self.recording = otel.is_recording()
        self.traceparent: str | None = (
            f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"
        )
        self._outer: Span | None = None

    def rename(self, name: str) -> None:
        self.otel.update_name(name)

    def set(self, name: str, value: Value) -> None:
        self.otel.set_attribute(name, value)

    def event(self, name: str) -> None:
        self.otel.add_event(name)

    def fail(self, error: BaseException) -> None:
        name = name_of(error)
        self.otel.set_attribute("error.type", name)
        if name != CANCELLED:
            self.broken()

    def broken(self) -> None:
        self.otel.set_status(trace.StatusCode.ERROR)

    def end(self) -> None:
        self.otel.end()

    def __enter__(self) -> Recorded:
        self._outer = CURRENT.get()
        CURRENT.set(self if self.recording else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not ContextVar.reset: it raises where a generator is closed in another task than it began in.
        CURRENT.set(self._outer)
        if exc is not None:
            self.fail(exc)
        self.end()


class OtelTracer:
    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("hermes2")

    def server(self, name: str, traceparent: str | None, tracestate: str) -> Recorded:
        carrier = {"traceparent": traceparent or "", "tracestate": tracestate}
        context = PROPAGATOR.extract(carrier, Context())
        return Recorded(self._tracer.start_span(name, context, trace.SpanKind.SERVER))

    def child(self, name: str, parent: Span, *, calls: bool) -> Recorded:
        assert isinstance(parent, Recorded)
        kind = trace.SpanKind.CLIENT if calls else trace.SpanKind.INTERNAL
        return Recorded(self._tracer.start_span(name, trace.set_span_in_context(parent.otel), kind))


def open_provider(exporters: Sequence[Exporter], version: str) -> TracerProvider:
    """Sampler, resource, queue and exporters as the environment has them. Raises ValueError for what cannot be read there."""
    provider = TracerProvider(resource=resource(version), shutdown_on_exit=False)
    for each in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter(each)))
    return provider


def resource(version: str) -> Resource:
    """What the environment says, and a name of our own where it says none."""
    found = Resource.create({SERVICE_VERSION: version, "process.pid": os.getpid()})
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: NAME}))
    return found


def exporter(name: Exporter) -> SpanExporter:
    if name == "console":
        return ConsoleSpanExporter()
    if name == "otlp/grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

        return OverGrpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

    return OverHttp()


def close_provider(provider: TracerProvider) -> bool:
    """Sends what is left. False: not all of it was sent in time; a collector that does not answer holds up nobody's end."""
    closing = threading.Thread(target=provider.shutdown, name="tracing-flush", daemon=True)
    closing.start()
    closing.join(FLUSH_S)
    return not closing.is_alive()


class Complaints(logging.Handler):
    """What the SDK logs, as events of ours, seldom."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._next = float("-inf")
        self._unsaid = 0

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        if now < self._next:
            self._unsaid += 1
            return
        fields: dict[str, Any] = {"unsaid": self._unsaid} if self._unsaid else {}
        self._next, self._unsaid = now + COMPLAINTS_S, 0
        # A complaint about OTEL_EXPORTER_OTLP_HEADERS quotes what it could not read, which may be a key.
        reason = str(record.msg) if record.name.startswith("opentelemetry.util") else record.getMessage()
        log.warning("tracing_trouble", source=record.name, reason=reason[:MOST_CHARS], **fields)


def hear_complaints() -> None:
    """In place of Python's last resort, which would print them as they come."""
    logger = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, Complaints) for handler in logger.handlers):
        logger.addHandler(Complaints())
        logger.propagate = False
