"""The probes of orchestrators. The only routes that need no key."""

from __future__ import annotations

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from frontend.http.answers import answer
from frontend.http.auth import PUBLIC
from frontend.services.health import Health, HealthService

NOT_YET = {503: answer(Health, description="Not yet, or not now; the body says what is missing.")}


class HealthController(Controller):
    path = "/health"
    tags = ("Health",)
    opt = PUBLIC

    @get("/live")
    async def live(self) -> dict[str, str]:
        """This process and its event loop work."""
        return {"status": "ok"}

    @get("/startup", responses=NOT_YET)
    async def startup(self, health: NamedDependency[HealthService]) -> Response[Health]:
        """200 once the engine has answered for the first time."""
        state = await health.check()
        return Response(state, status_code=200 if health.started else 503)

    @get("/ready", responses=NOT_YET)
    async def ready(self, health: NamedDependency[HealthService]) -> Response[Health]:
        """200 if requests are taken: the engine answers. A service that shuts down takes no connection at all."""
        state = await health.check()
        return Response(state, status_code=200 if state.status == "ready" else 503)
