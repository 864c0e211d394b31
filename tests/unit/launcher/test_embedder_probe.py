"""deploy/launcher/embedder_probe: when the embedder is asked, and when it is lost. Triton is scripted, and so is the time."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from deploy.launcher import embedder_probe as module
from deploy.launcher.embedder_probe import EmbedderProbe
from deploy.launcher.family import Command, Family
from deploy.launcher.supervisor import ServiceFailed


class Triton:
    """Answers at once, or with an error after the time that the caller gives; embeds another batch meanwhile, or does not."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.error: str | None = None
        self.works = True
        self.asked = 0
        self._batches = 5

    async def ModelInfer(self, request: object, timeout: float) -> None:  # noqa: N802, ASYNC109
        self.asked += 1
        self._batches += self.works
        if self.error is not None:
            self.now_s += timeout
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNKNOWN, grpc.aio.Metadata(), grpc.aio.Metadata(), self.error)

    async def ModelStatistics(self, request: object, timeout: float) -> Any:  # noqa: N802, ASYNC109
        return SimpleNamespace(model_stats=[SimpleNamespace(execution_count=self._batches)])


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> Triton:
    made = Triton()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now_s))
    return made


async def looks(probe: EmbedderProbe, triton: Any, seconds: float) -> None:
    """As the launcher does, a second after each other."""
    until = triton.now_s + seconds
    while triton.now_s < until:
        await probe.ask(triton)
        triton.now_s += 1


async def test_it_is_asked_every_ten_seconds(triton: Triton) -> None:
    await looks(EmbedderProbe(Path("/no/such/model.py")), triton, 60)
    assert triton.asked == 6


async def test_one_that_is_slow_is_not_lost(triton: Triton) -> None:
    """It answers no probe in time, and goes on."""
    probe = EmbedderProbe(Path("/no/such/model.py"))
    await probe.ask(triton)
    triton.error = "Deadline Exceeded"
    await looks(probe, triton, 300)


async def test_one_that_hangs_is_lost_after_its_patience(triton: Triton) -> None:
    """Half a minute after its last answer, whatever it had finished before that."""
    probe = EmbedderProbe(Path("/no/such/model.py"))
    await looks(probe, triton, 60)
    answered_s = triton.now_s - 10
    triton.error, triton.works = "Deadline Exceeded", False
    with pytest.raises(ServiceFailed, match="nothing for 30 s"):
        await looks(probe, triton, 300)
    assert 30 < triton.now_s - answered_s < 36


async def test_one_that_triton_gave_up_is_lost_at_once(triton: Triton) -> None:
    triton.error = "Stub process 'embedder_0_0' is not healthy"
    with pytest.raises(ServiceFailed, match="not healthy"):
        await EmbedderProbe(Path("/no/such/model.py")).ask(triton)


async def test_one_whose_process_ends_is_lost_without_being_asked(triton: Triton) -> None:
    script = f"/somewhere/{os.getpid()}/embedder/1/model.py"
    family = await Family.start(Command("embedder", ["sh", "-c", "sleep 60; :", script], dict(os.environ)))
    probe = EmbedderProbe(Path(script))
    await looks(probe, triton, 5)
    await family.kill()
    with pytest.raises(ServiceFailed, match="has ended"):
        await probe.ask(triton)
    assert triton.asked == 1
