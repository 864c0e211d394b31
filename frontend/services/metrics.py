"""One scrape: the frontend's metrics, those of vLLM and of Triton, and who answers just now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from frontend.domain.ports import Engine
from frontend.observability import build, exposition, metrics
from frontend.services.asking import Asking
from frontend.services.health import HealthService

TIMEOUT_S = 1.8
"""A scrape waits for nobody longer; Prometheus gives up after 10 s, unless it is told otherwise."""


class MetricsService:
    def __init__(
        self,
        health: HealthService,
        engine: Engine,
        triton: Callable[[], Awaitable[str]] | None,
        runs: Mapping[str, str],
        *,
        across_processes: bool,
    ) -> None:
        """`triton`: reads its own metrics. `runs`: what does, by labels of hermes2_build_info."""
        self._checks = {name: Asking(check, TIMEOUT_S) for name, check in health.checks.items()}
        self._engine = Asking(engine.metrics, TIMEOUT_S)
        self._triton = Asking(triton, TIMEOUT_S) if triton is not None else None
        self._runs = {"version": build.VERSION, "python": build.PYTHON, **runs}
        self._across_processes = across_processes

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """On the way out nothing is asked any more."""
        try:
            yield
        finally:
            for check in self._checks.values():
                await check.close()
            for source in (self._engine, self._triton):
                if source is not None:
                    await source.close()

    async def scrape(self) -> str:
        """Prometheus text format. Who does not answer leaves its part out, and is 0 in hermes2_dependency_up."""
        up, of_engine, of_triton = await asyncio.gather(self._up(), self._engine.answer(), self._of_triton())
        if self._triton is not None:
            up["triton"] = of_triton is not None
        gauges = exposition.Gauges()
        gauges.add("hermes2_build_info", "What runs; always 1.", [(self._runs, 1)])
        gauges.add(
            "hermes2_dependency_up",
            "Whether it answered this scrape.",
            [({"dependency": name}, int(each)) for name, each in up.items()],
        )
        return await asyncio.to_thread(self._text, gauges, of_engine or "", of_triton or "")

    async def _up(self) -> dict[str, bool]:
        answers = await asyncio.gather(*(asking.answer() for asking in self._checks.values()))
        return dict(zip(self._checks, (bool(answer) for answer in answers), strict=True))

    async def _of_triton(self) -> str | None:
        return await self._triton.answer() if self._triton is not None else None

    def _text(self, gauges: exposition.Gauges, *foreign: str) -> str:
        """Blocks: it reads files, and goes through some hundred kilobytes."""
        return exposition.joined(metrics.render(self._across_processes) + gauges.text(), *foreign)
