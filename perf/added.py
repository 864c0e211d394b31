"""What frontend and Triton add to the time to the first token where nothing else runs: the service and the bare engine in turn.

Both are started, with the same arguments; one of them computes at a time. The same chats, as text for the service and as ready
token ids for the engine, whose time counts from the call of its `generate` to its first delta.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from frontend.domain.hermes.encoder import Encoder
from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.messages import Chat, Message
from frontend.settings import ROOT
from perf import headline, machine, open_loop, plot, service, vllm_server
from perf.overload_load import percentile

TARGET_S = 0.005
"""Added at the median, at most."""
Say = Callable[[str], None]


class Times(msgspec.Struct, frozen=True):
    """Of one request, in seconds."""

    ttft_s: float
    total_s: float


class Pair(msgspec.Struct, frozen=True):
    """The same chat."""

    service: Times
    engine: Times


class BareEngine:
    def __init__(self, process: subprocess.Popen[bytes], renderer: PromptRenderer) -> None:
        self._process = process
        self._renderer = renderer

    def ask(self, said: str) -> Times:
        turns = self._renderer.turns(Chat(messages=[Message("user", said)]))
        prompt_ids = self._renderer.prompt(turns)
        asked = msgspec.json.encode({"prompt_ids": prompt_ids, "max_tokens": headline.ANSWER_TOKENS})
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(asked + b"\n")
        self._process.stdin.flush()
        return msgspec.json.decode(self._process.stdout.readline(), type=Times)


@contextmanager
def bare_engine() -> Iterator[BareEngine]:
    with TemporaryDirectory() as home:
        ours = vllm_server.prepared(home, {})
        environment = dict(ours.triton.command().environment)
        environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'model_repository/hermes2/1'}"
        python = ours.settings.engine.environment / "bin/python"
        log = Path(home) / "engine.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [python, "-m", "perf.bare_engine", json.dumps(vllm_server.engine_args(ours.triton.parameters()))],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        try:
            assert process.stdout is not None
            while (line := process.stdout.readline()) and line.strip() != b"ready":
                pass  # vLLM's own log
            if not line:
                raise RuntimeError("the engine does not start:\n" + log.read_text(errors="replace")[-4000:])
            yield BareEngine(
                process, PromptRenderer(Encoder.from_folder(ours.model), ours.card.chat, ours.card.raw_bos)
            )
        finally:
            service.stop(process)


def measure(chats: int, pause_s: float, say: Say) -> Sequence[Pair]:
    """`pause_s`: before each request, so that it finds nothing running."""
    with service.running(LOG_LEVEL="warning") as running, bare_engine() as engine:
        key = running.new_key("added")
        return asyncio.run(pairs(chats, pause_s, running.url, key, engine, say))


async def pairs(chats: int, pause_s: float, url: str, key: str, engine: BareEngine, say: Say) -> Sequence[Pair]:
    more: dict[str, object] = {"model": "hermes-2", "store": True}
    client = open_loop.Client(url, key)
    said = list(open_loop.prompts(chats + 5, words=headline.PROMPT_WORDS, seed=1))
    bodies = open_loop.chats(
        chats + 5, words=headline.PROMPT_WORDS, answer_tokens=headline.ANSWER_TOKENS, seed=1, more=more
    )
    found = []
    try:
        for text, body in zip(said, bodies, strict=True):
            await asyncio.sleep(pause_s)
            outcome = await client.ask(body, time.perf_counter())
            if outcome.error is not None:
                raise RuntimeError(outcome.error)
            await asyncio.sleep(pause_s)
            alone = await asyncio.to_thread(engine.ask, text)
            found.append(Pair(Times(outcome.ttft_s, outcome.total_s), alone))
            if len(found) % 20 == 0:
                say(f"{len(found)}: {1e3 * added_s(found):.1f} ms added")
    finally:
        client.close()
    return found[5:]  # the first ones warm


def added_s(found: Sequence[Pair]) -> float:
    return median(pair.service.ttft_s - pair.engine.ttft_s for pair in found)


def report(found: Sequence[Pair]) -> str:
    """As Markdown."""
    how = (
        f"`python -m perf added` on {machine.describe()}: {len(found)} chats of about 60 prompt and"
        f" {headline.ANSWER_TOKENS} answer tokens, one at a time, each asked of the service (key, limits and storage on) and"
        " then of the bare engine beside it, which has the same arguments and gets token ids; the client is on the same machine."
    )
    rows = [
        f"| {name} | {quartiles([getattr(pair.service, field) for pair in found])} |"
        f" {quartiles([getattr(pair.engine, field) for pair in found])} |"
        f" {quartiles([getattr(pair.service, field) - getattr(pair.engine, field) for pair in found])} |"
        for name, field in (("first token", "ttft_s"), ("end of the answer", "total_s"))
    ]
    verdict = "met" if added_s(found) <= TARGET_S else "missed"
    return "\n".join(
        [
            "# What frontend and Triton add to the first token",
            "",
            how,
            "",
            "| ms, median (quartiles) | service | bare engine | difference of each pair |",
            "|---|---|---|---|",
            *rows,
            "",
            f"- first token, added, p50: {1e3 * added_s(found):.1f} ms, the target is {1e3 * TARGET_S:g} ms at most: {verdict}",
            "",
        ]
    )


def quartiles(values: Sequence[float]) -> str:
    low, middle, high = (1e3 * percentile(values, share) for share in (0.25, 0.5, 0.75))
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def pictures(found: Sequence[Pair]) -> list[plot.Panel]:
    both = {
        "service": [pair.service.ttft_s for pair in found],
        "bare engine": [pair.engine.ttft_s for pair in found],
    }
    return [plot.Distribution("First token", both)]
