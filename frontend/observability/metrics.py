"""The frontend's own Prometheus metrics, and their text across all its processes."""

from __future__ import annotations

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

REQUESTS = Counter("hermes2_http_requests", "Requests answered.", ["method", "route", "status"])
DURATION = Histogram(
    "hermes2_http_request_duration_seconds",
    "From the request's first byte to the reply's last.",
    ["route"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 120, 600),
)
GENERATIONS = Gauge("hermes2_generations_open", "Generations that a client waits for.", multiprocess_mode="livesum")


def render(across_processes: bool) -> str:
    """Prometheus text. With several processes, PROMETHEUS_MULTIPROC_DIR holds what each has counted."""
    registry = prometheus_client.REGISTRY
    if across_processes:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client is untyped here
    return prometheus_client.generate_latest(registry).decode()


def engine_up(up: bool) -> str:
    """A gauge of its own text: whether the engine's part stands in this scrape."""
    return (
        "# HELP hermes2_engine_up Whether the engine answered this scrape.\n"
        "# TYPE hermes2_engine_up gauge\n"
        f"hermes2_engine_up {int(up)}\n"
    )
