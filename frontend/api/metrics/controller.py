"""One scrape: the frontend's metrics, those that vLLM counts in the engine, and Triton's own."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from frontend.http.auth import needs
from frontend.services.metrics import MetricsService

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsController(Controller):
    path = "/metrics"
    tags = ("Metrics",)
    opt = needs("metrics")

    @get(media_type=PROMETHEUS_TEXT)
    async def metrics(self, metrics: NamedDependency[MetricsService]) -> Response[str]:
        """Prometheus text format. What does not answer leaves its part out, and is 0 in hermes2_dependency_up."""
        return Response(await metrics.scrape(), media_type=PROMETHEUS_TEXT)
