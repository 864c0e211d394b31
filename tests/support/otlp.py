"""A collector of spans on loopback: takes OTLP over HTTP and over gRPC as any other, and keeps what it was sent."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

MOST_BATCHES = 10_000
POLL_S = 0.05


class SentSpan(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the first of its trace."""
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    events: Sequence[str]
    failed: bool


class Collector:
    """Nothing is decoded before a test asks for it: whoever sends is not kept waiting."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        """Of its root, as OTEL_EXPORTER_OTLP_ENDPOINT wants it."""
        self._batches: deque[bytes] = deque(maxlen=MOST_BATCHES)

    def take(self, batch: bytes) -> None:
        self._batches.append(batch)

    def environment(self, **more: str) -> dict[str, str]:
        """Sends what is recorded ten times a second."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"} | more

    @property
    def content(self) -> bytes:
        """All that it was sent."""
        return b"\n".join(list(self._batches))

    def spans(self) -> list[SentSpan]:
        return [span for batch in list(self._batches) for span in decoded(batch)]

    def trace(self, trace_id: str, until: Callable[[list[SentSpan]], object], timeout_s: float = 20) -> list[SentSpan]:
        """The spans of a trace, in the order of their beginning, as soon as `until` is content with them."""
        end = time.monotonic() + timeout_s
        while True:
            found = sorted((s for s in self.spans() if s.trace_id == trace_id), key=lambda span: span.start_ns)
            if until(found):
                return found
            if time.monotonic() > end:
                raise AssertionError(f"within {timeout_s:g} s there came only {[(s.service, s.name) for s in found]}")
            time.sleep(POLL_S)


def decoded(batch: bytes) -> Iterator[SentSpan]:
    for resource in ExportTraceServiceRequest.FromString(batch).resource_spans:
        service = values(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield SentSpan(
                    service=service,
                    name=span.name,
                    kind=span.kind,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=values(span.attributes),
                    events=[event.name for event in span.events],
                    failed=span.status.code == 2,
                )


def values(attributes: Any) -> dict[str, Any]:
    def value(sent: Any) -> Any:
        kind = sent.WhichOneof("value")
        return [value(each) for each in sent.array_value.values] if kind == "array_value" else getattr(sent, kind)

    return {each.key: value(each.value) for each in attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """Over HTTP."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            known = self.path == "/v1/traces"
            if known:
                found.take(body)
            self.send_response(200 if known else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield found
        finally:
            server.shutdown()
            serving.join()


@contextmanager
def grpc_collector() -> Iterator[Collector]:
    """Over gRPC."""
    found = Collector()

    class Servicer(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:  # noqa: N802
            found.take(request.SerializeToString())
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]  # generated code
    found.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield found
    finally:
        server.stop(0).wait()
