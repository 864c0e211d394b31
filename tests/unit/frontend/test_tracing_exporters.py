"""frontend/observability/trace_exporters and otel: what the standard variables switch on, and collectors that are away."""

from __future__ import annotations

import json
import logging
import socket
import sys
import time
from collections.abc import Iterator, Mapping

import pytest
import structlog
from hermes2_backend import tracing as engine_tracing

from frontend.observability import otel, trace_exporters, tracing
from tests.support.otlp import collector, grpc_collector

AT = "http://127.0.0.1:4318"


@pytest.fixture(autouse=True)
def _nothing_heard_before() -> Iterator[None]:
    """Who has complained is silent for a minute; each test begins without."""
    yield
    logger = logging.getLogger("opentelemetry")
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, otel.Complaints)]
    logger.propagate = True


@pytest.mark.parametrize(
    ("environment", "exporters", "engine"),
    [
        ({}, [], None),
        ({"OTEL_SERVICE_NAME": "a", "OTEL_TRACES_SAMPLER": "always_on"}, [], None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, [], None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": AT}, ["otlp/http"], f"{AT}/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{AT}/"}, ["otlp/http"], f"{AT}/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{AT}/in"}, ["otlp/http"], f"{AT}/in"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": AT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp/grpc"], AT),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": AT,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ["otlp/http"],
            f"{AT}/v1/traces",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp/http"], "http://localhost:4318/v1/traces"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ["otlp/grpc"],
            "http://localhost:4317",
        ),
        ({"OTEL_TRACES_EXPORTER": "console"}, ["console"], None),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp/http", "console"], "http://localhost:4318/v1/traces"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": AT}, [], None),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": AT}, [], None),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_ENDPOINT": AT}, ["otlp/http"], f"{AT}/v1/traces"),
    ],
)
def test_what_is_wanted(environment: Mapping[str, str], exporters: list[str], engine: str | None) -> None:
    """Nothing, unless an exporter or a collector is named. Frontend and engine read the variables alike."""
    assert trace_exporters.wanted(environment) == exporters
    assert engine_tracing.endpoint(environment) == engine


@pytest.mark.parametrize(
    "environment",
    [{"OTEL_TRACES_EXPORTER": "zipkin"}, {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}],
)
async def test_what_is_not_known(environment: Mapping[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and nothing is exported: the service starts all the same."""
    async with trace_exporters.exporting(environment):
        assert not tracing.is_on()
    assert "tracing_off" in capsys.readouterr().out
    assert engine_tracing.endpoint(environment) is None


def test_the_engine_s_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector's address; the protocol where vLLM looks for it; a name of its own, unless one was given."""
    monkeypatch.setattr(engine_tracing, "installed", lambda module: True)
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": AT}
    assert engine_tracing.arguments(environment) == {"otlp_traces_endpoint": f"{AT}/v1/traces"}
    assert environment["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert environment["OTEL_SERVICE_NAME"] == "hermes2-engine"
    for name, value in (("OTEL_SERVICE_NAME", "mine"), ("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine")):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": AT, name: value}
        engine_tracing.arguments(environment)
        assert environment.get("OTEL_SERVICE_NAME") in (None, "mine")


def test_an_engine_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts without spans: vLLM would refuse the argument. Nor do its processes find an address to send to."""
    monkeypatch.setattr(engine_tracing, "installed", lambda module: False)
    environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{AT}/v1/traces"}
    assert engine_tracing.arguments(environment) == {}
    assert environment == {}
    assert not engine_tracing_installed("a_module.that_is_not_there")


engine_tracing_installed = engine_tracing.installed


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_what_arrives(protocol: str) -> None:
    """All spans, when the process ends at the latest, under the service's name and with what the environment adds."""
    with (collector if protocol == "http/protobuf" else grpc_collector)() as found:
        environment = found.environment(OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_BSP_SCHEDULE_DELAY="60000")
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():  # the SDK reads the process's own
                patch.setenv(name, value)
            async with trace_exporters.exporting():
                with tracing.server_span("whole", None, ""), tracing.span("part"):
                    pass
        part, whole = sorted(found.spans(), key=lambda span: span.name)
    assert (whole.name, part.name) == ("whole", "part")
    assert part.parent_id == whole.span_id
    assert whole.service == "hermes2-frontend"
    assert not tracing.is_on()


def test_the_service_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's, where it has one."""
    assert otel.resource("1").attributes["service.name"] == "hermes2-frontend"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=mine,deployment.environment.name=test")
    assert otel.resource("1").attributes["service.name"] == "mine"
    assert otel.resource("1").attributes["deployment.environment.name"] == "test"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "other")
    assert otel.resource("1").attributes["service.name"] == "other"


@pytest.fixture
def _to_standard_output() -> Iterator[None]:
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.PrintLoggerFactory(sys.stdout)
    )
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("_to_standard_output")
async def test_a_collector_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody waits for it: not who makes spans, more of them than are kept, and the end of the process 2 s at most."""
    monkeypatch.setattr(otel, "FLUSH_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
        started = time.monotonic()
        async with trace_exporters.exporting():
            with tracing.server_span("whole", None, ""):
                for _ in range(2000):
                    tracing.start("part").end()
        assert time.monotonic() - started < 3
    events = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert events.count("tracing_trouble") <= 1
    assert events[-1] == "spans_lost"


@pytest.mark.usefixtures("_to_standard_output")
def test_complaints_are_seldom(capsys: pytest.CaptureFixture[str]) -> None:
    """One a minute, which says how many there were besides."""
    now = [0.0]
    handler = otel.Complaints(clock=lambda: now[0])
    for second in (0, 1, 2, 61):
        now[0] = second
        handler.handle(logging.LogRecord("opentelemetry.x", logging.ERROR, "", 0, "It failed.", (), None))
    first, second_ = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["event"], first["reason"], first.get("unsaid")) == ("tracing_trouble", "It failed.", None)
    assert second_["unsaid"] == 2


@pytest.mark.usefixtures("_to_standard_output")
async def test_headers_are_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Also those that cannot be read, which the SDK quotes."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", AT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "canary-of-a-key")
    async with trace_exporters.exporting():
        pass
    said = capsys.readouterr()
    assert "tracing_trouble" in said.out
    assert "canary" not in said.out + said.err
