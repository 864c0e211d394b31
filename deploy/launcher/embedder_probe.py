"""Whether the embedder works: its process lives, and it finishes batches. The launcher asks, beside the engine (ADR 7)."""

from __future__ import annotations

import time
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from deploy.launcher.family import process_of, runs
from deploy.launcher.supervisor import ServiceFailed
from frontend.triton import embedder_wire

EVERY_S = 10.0
"""How often the embedder is asked to embed; that its process lives is looked at each time. To Triton a process that got no
core for a second is dead if it was asked something meanwhile, and only then: who asks seldom takes fewer slow ones for dead."""
ANSWER_S = 2.0
"""How long one probe waits for the embedder: Triton finds a dead process within a second."""
STATISTICS_S = 1.0
"""With what the embedder is given it stays below what the engine has (`hang_timeout_s` / 2): a slow embedder is no dead engine.
Triton needs 1.4 s for its statistics where a foreign load has all cores."""
PATIENCE_S = 30.0
"""How long the embedder may finish nothing: its longest batch takes 2 s on a core of its own, several times that on one that
it shares with a busy engine."""
DEAD_STUB = "Stub process"
"""In Triton's answer for a model whose Python process is dead. It does not start one anew (since 24.06), see docs/decisions."""


class EmbedderProbe:
    """Of one start of Triton."""

    def __init__(self, script: Path) -> None:
        """`script`: what stands on the command line of the embedder's process."""
        self._script = str(script)
        self._process: Path | None = None
        self._seen = float("-inf")
        self._batches: int | None = None
        """How many it had finished when it first kept a probe waiting."""

    async def ask(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
        """Looks for its process, and now and then embeds one token; where that has to wait, batches that were finished meanwhile
        count. Raises ServiceFailed, and returns soon in any case: what it asks of Triton has a limit."""
        if self._process is not None and not runs(self._process, self._script):
            raise ServiceFailed("the embedder's process has ended")
        if time.monotonic() - self._seen < EVERY_S:
            return
        try:
            await stub.ModelInfer(embedder_wire.probe_request(), timeout=ANSWER_S)
        except grpc.aio.AioRpcError as exc:
            if DEAD_STUB in str(exc.details()):
                raise ServiceFailed(f"the embedder answers: {exc.details()}") from exc
            if not await self._works(stub):
                if time.monotonic() - self._seen > PATIENCE_S:
                    raise ServiceFailed(f"the embedder has finished nothing for {PATIENCE_S:g} s") from exc
                return
        self._seen, self._batches = time.monotonic(), None
        self._process = self._process or process_of(self._script)

    async def _works(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> bool:
        """Whether it has finished batches since this was asked first, as far as Triton says so in time."""
        request = service_pb2.ModelStatisticsRequest(name=embedder_wire.MODEL)
        try:
            done = await stub.ModelStatistics(request, timeout=STATISTICS_S)
        except grpc.aio.AioRpcError:
            return False
        finished = done.model_stats[0].execution_count
        if self._batches is None:
            self._batches = finished
        return bool(finished != self._batches)
