"""Which exporters of spans the standard variables of OpenTelemetry ask for: none, unless one of them names an exporter or a
collector. The same rules stand in hermes2_backend/tracing.py for the engine; a contract test holds the two together."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import structlog

from frontend.observability import build, tracing

log = structlog.get_logger("hermes2.tracing")
Exporter = Literal["otlp/http", "otlp/grpc", "console"]
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
OVER: Mapping[str, Exporter] = {"http/protobuf": "otlp/http", "grpc": "otlp/grpc"}


def wanted(environment: Mapping[str, str]) -> list[Exporter]:
    """Raises ValueError for an exporter or a protocol that is not known here."""

    def first(*names: str) -> str:
        return next((value for name in names if (value := environment.get(name, "").strip())), "")

    if first("OTEL_SDK_DISABLED").lower() == "true":
        return []
    names = first("OTEL_TRACES_EXPORTER") or ("otlp" if first(*ENDPOINTS) else "none")
    found: list[Exporter] = []
    for name in names.split(","):
        if (name := name.strip()) == "otlp":
            protocol = first(*PROTOCOLS) or "http/protobuf"
            if protocol not in OVER:
                raise ValueError(f"{PROTOCOLS[1]}: http/protobuf or grpc was expected, not {protocol!r}")
            found.append(OVER[protocol])
        elif name == "console":
            found.append("console")
        elif name not in ("", "none"):
            raise ValueError(f"OTEL_TRACES_EXPORTER: otlp, console or none was expected, not {name!r}")
    return found


@asynccontextmanager
async def exporting(environment: Mapping[str, str] | None = None) -> AsyncIterator[None]:
    """Records spans meanwhile, if the environment asks for it. On the way out it waits 2 s at most for them to be sent.

    What cannot be understood there is logged, and nothing is recorded, as the specification of OpenTelemetry has it: these
    variables are often meant for others.
    """
    close = open_tracer(os.environ if environment is None else environment)
    try:
        yield
    finally:
        tracing.PROCESS.tracer = None
        if close is not None and not await asyncio.to_thread(close):
            log.warning("spans_lost", reason="the collector did not take them in time")


def open_tracer(environment: Mapping[str, str]) -> Callable[[], bool] | None:
    """What closes it; False: spans were lost. None: nothing is exported, and the SDK not even imported."""
    try:
        exporters = wanted(environment)
        if not exporters:
            return None
        from frontend.observability import otel

        otel.hear_complaints()
        provider = otel.open_provider(exporters, build.VERSION)
    except Exception as exc:  # whatever it is: the service starts without traces
        log.warning("tracing_off", reason=str(exc))
        return None
    log.info("tracing_on", exporters=exporters)
    tracing.PROCESS.tracer = otel.OtelTracer(provider)
    return partial(otel.close_provider, provider)
