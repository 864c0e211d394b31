"""vLLM's own spans, switched on by OpenTelemetry's standard variables: the same that switch the frontend's on
(frontend/observability/trace_exporters.py).

vLLM records one span a request, `llm_request`, with the times of queue, prefill and decode, below the trace context that came
with it; and spans of its loading. It wants the collector's address as an argument, reads the protocol from one variable
only, and takes that to be gRPC where it is not set.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping, MutableMapping

SERVICE_NAME = "hermes2-engine"
PROTOCOL = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "opentelemetry.exporter.otlp.proto.grpc")
FLUSH_S = 2.0
"""How long the end of the engine waits for spans to be sent."""


def endpoint(environment: Mapping[str, str]) -> str | None:
    """Where spans go, as vLLM wants it: over HTTP with its path. None: nowhere."""
    if said(environment, "OTEL_SDK_DISABLED").lower() == "true":
        return None
    names = {name.strip() for name in said(environment, "OTEL_TRACES_EXPORTER").split(",")} - {""}
    own, general = said(environment, ENDPOINT), said(environment, "OTEL_EXPORTER_OTLP_ENDPOINT")
    known = protocol(environment)
    if known is None or not ("otlp" in names if names else own or general):
        return None
    if own:
        return own
    if known == "grpc":
        return general or "http://localhost:4317"
    return (general or "http://localhost:4318").rstrip("/") + "/v1/traces"


def protocol(environment: Mapping[str, str]) -> str | None:
    """None: one that vLLM does not know."""
    found = said(environment, PROTOCOL) or said(environment, "OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    return found if found in ("http/protobuf", "grpc") else None


def said(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip()


def arguments(environment: MutableMapping[str, str]) -> dict[str, object]:
    """For AsyncEngineArgs. Writes into `environment` what vLLM and its processes read from there."""
    to = endpoint(environment)
    if to is None or not all(installed(module) for module in NEEDED):
        environment.pop(ENDPOINT, None)  # vLLM's processes would take it for one that they were given
        return {}
    environment[PROTOCOL] = protocol(environment) or ""
    if "service.name=" not in said(environment, "OTEL_RESOURCE_ATTRIBUTES"):
        environment.setdefault("OTEL_SERVICE_NAME", SERVICE_NAME)
    return {"otlp_traces_endpoint": to}


def installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def flush(timeout_s: float = FLUSH_S) -> None:
    """Sends what is left, as long as that takes no longer: a collector that does not answer must not hold up the end."""
    from opentelemetry import trace

    close = getattr(
        trace.get_tracer_provider(), "shutdown", None
    )  # the API's own provider, that of no tracing, has none
    if close is not None:
        closing = threading.Thread(target=close, name="tracing-flush", daemon=True)
        closing.start()
        closing.join(timeout_s)
