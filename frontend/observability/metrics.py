"""The frontend's own Prometheus metrics that belong to no single part, and the text of all of them across its processes."""

from __future__ import annotations

import os
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

# When each counter began: a second series for each, which Prometheus does not read in this format.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client is untyped here

REQUESTS = Counter("hermes2_http_requests", "Requests answered.", ["method", "route", "status"])
DURATION = Histogram(
    "hermes2_http_request_duration_seconds",
    "From the request's first byte to the reply's last.",
    ["route"],
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 120, 600),
)
FIRST_TOKEN = Histogram(
    "hermes2_time_to_first_token_seconds",
    "Streamed replies: from the request's first byte to the first token from the engine.",
    ["route"],
    buckets=(0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 120),
)
INTER_TOKEN = Histogram(
    "hermes2_inter_token_latency_seconds",
    "Streamed replies: between two tokens of a choice, the average of each reply.",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2),
)
GENERATIONS = Gauge("hermes2_generations_open", "Generations that a client waits for.", multiprocess_mode="livesum")

_TOKENS = Counter(
    "hermes2_tokens", "Tokens of prompts, those of them from the prefix cache, of answers, embedded.", ["kind"]
)
READ, CACHED, WRITTEN, EMBEDDED = (_TOKENS.labels(kind) for kind in ("prompt", "cached", "completion", "embedding"))

_ENDED = Counter("hermes2_generations", "Generations that ended, the service's own among them.", ["outcome"])
COMPLETED, FAILED, CANCELLED = (_ENDED.labels(outcome) for outcome in ("completed", "failed", "cancelled"))

OF_PROCESSES = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own variable: where each process keeps what it has counted."""


def render(across_processes: bool) -> str:
    """Prometheus text. Blocks: with several processes it reads a file of each metric's kind and process."""
    registry = prometheus_client.REGISTRY
    if across_processes:
        forget_dead(Path(os.environ[OF_PROCESSES]))
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client is untyped here
    return prometheus_client.generate_latest(registry).decode()


def forget_dead(folder: Path) -> None:
    """Gauges of a worker that was killed: nobody else takes them away, and its generations would be open for ever."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)
