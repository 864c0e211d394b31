"""One scrape: the frontend's metrics, and those that vLLM counts in the engine."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from frontend.domain.errors import ServiceError
from frontend.domain.ports import Engine
from frontend.http.auth import needs
from frontend.observability import metrics
from frontend.settings import Settings

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsController(Controller):
    path = "/metrics"
    tags = ("Metrics",)
    opt = needs("metrics")

    @get(media_type=PROMETHEUS_TEXT)
    async def metrics(self, engine: NamedDependency[Engine], settings: NamedDependency[Settings]) -> Response[str]:
        """Prometheus text format. An engine that does not answer leaves its part out and sets hermes2_engine_up to 0."""
        text = metrics.render(across_processes=settings.workers > 1)
        try:
            text += await engine.metrics() + metrics.engine_up(True)
        except ServiceError:
            text += metrics.engine_up(False)
        return Response(text, media_type=PROMETHEUS_TEXT)
