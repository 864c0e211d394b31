"""Whether the service can work: the engine must answer; without SQL what lasts is closed, without Valkey nothing is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import msgspec

from frontend.domain.errors import ServiceError
from frontend.domain.ports import Embedder, Engine, HotState
from frontend.domain.storage import Database

FRESH_S = 1.0
"""An answer of the engine is reused for so long: probes of many pollers cost one question a second."""
TIMEOUT_S = 2.0
ONE_TOKEN = ((0,),)
"""The shortest batch that makes an embedding model work."""


class Health(msgspec.Struct, frozen=True):
    status: Literal["ready", "not_ready"]
    engine: Literal["ok", "unavailable"]
    sql: Literal["ok", "degraded"]
    valkey: Literal["ok", "degraded"]


class HealthService:
    def __init__(
        self,
        engine: Engine,
        database: Database,
        hot_state: HotState,
        embedder: Embedder | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`embedder`: None if there is none; a service without it is ready."""
        self._engine = engine
        self._embedder = embedder
        self._database = database
        self._hot_state = hot_state
        self._clock = clock
        self._asked_at = float("-inf")
        self._engine_ok = False
        self._asking = asyncio.Lock()
        self.started = False
        """True once the engine has answered for the first time."""

    async def check(self) -> Health:
        engine_ok, sql_ok, valkey_ok = await asyncio.gather(
            self._engine_answers(), self._database.check(), self._hot_state.check()
        )
        return Health(
            status="ready" if engine_ok else "not_ready",
            engine="ok" if engine_ok else "unavailable",
            sql="ok" if sql_ok else "degraded",
            valkey="ok" if valkey_ok else "degraded",
        )

    @property
    def checks(self) -> Mapping[str, Callable[[], Awaitable[bool]]]:
        """Whether each answers, by its name."""
        of_embedder = {} if self._embedder is None else {"embedder": self._embedder_answers}
        return {
            "engine": self._engine_answers,
            **of_embedder,
            "sql": self._database.check,
            "valkey": self._hot_state.check,
        }

    async def _embedder_answers(self) -> bool:
        assert self._embedder is not None
        try:
            await self._embedder.embed(ONE_TOKEN, urgent=True)
        except ServiceError:
            return False
        return True

    async def _engine_answers(self) -> bool:
        async with self._asking:
            if self._clock() - self._asked_at >= FRESH_S:
                try:
                    await asyncio.wait_for(self._engine.check(), TIMEOUT_S)
                    self._engine_ok = self.started = True
                except (ServiceError, TimeoutError):
                    self._engine_ok = False
                self._asked_at = self._clock()
            return self._engine_ok
