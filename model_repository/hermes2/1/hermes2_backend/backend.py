"""The life of a request in the stub: handed over by execute(), run as a task on the engine's loop, sent by the sender."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from . import wire
from .config import BackendConfig
from .engine import Engine
from .errors import BackendError, Internal, InvalidArgument, Unavailable
from .generation import Delta, Generation
from .sender import Sender
from .streams import LINGER_S, Mailbox, Responder, Stream, Tensors

SWITCH_INTERVAL_S = 0.0005
"""How long a busy thread keeps the GIL from another. The sender gives it up at every send; at Python's 5 ms, 300 clients
that left while the loop was busy took 215 ms on average to be seen off, and 4.7 s at worst; at 0.5 ms, 5 and 23 ms."""


def create_engine(config: BackendConfig) -> Engine:
    if config.engine == "scripted":
        from .scripted_engine import ScriptedEngine

        return ScriptedEngine.from_config(config)
    from .vllm_engine import VllmEngine

    return VllmEngine(config.vllm)


class Backend:
    """Owns the loop thread with the engine, and the sender. `submit` may be called from any thread."""

    def __init__(self, config: BackendConfig, log: Callable[[str], None]) -> None:
        self._config = config
        self._log = log
        self._numbers = itertools.count()
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        self._mailboxes: dict[str, Mailbox] = {}
        self._draining = False
        self._engine: Engine | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hermes2-engine-loop", daemon=True)
        self._sender = Sender(
            send_cost_s=config.send_cost_us / 1e6,
            letter_cost_s=config.letter_cost_us / 1e6,
            send_share=config.send_share,
            max_hold_s=config.max_hold_ms / 1e3,
            poll_interval_s=config.poll_interval_ms / 1e3,
            on_cancelled=self._on_cancelled,
            log=log,
        )

    def start(self) -> None:
        """Returns once the engine is loaded and warm. Raises what the engine raised."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread.start()
        self._sender.start()
        self._call(self._start_engine()).result()

    async def _start_engine(self) -> None:
        started = time.monotonic()
        self._engine = create_engine(self._config)
        loaded = time.monotonic()
        if self._config.warm_up:
            await self._engine.warm_up()
        self._log(f"engine loaded in {loaded - started:.1f} s, warm after {time.monotonic() - loaded:.1f} s more")

    def submit(self, responder: Responder, inputs: Tensors, parameters: str, request_id: str = "") -> None:
        """Takes one request over. Whatever happens to it is answered through `responder`."""
        stream = Stream(responder, wire.wants_structured_error(inputs), request_id)
        self._sender.open(stream)
        self._loop.call_soon_threadsafe(self._start_request, stream, inputs, parameters)

    def stop(self) -> None:
        """Waits for running requests, no longer than drain_timeout_s, aborts the rest and ends the engine."""
        self._call(self._drain()).result()
        self._sender.stop()
        if self._engine is not None:
            self._engine.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: object) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)  # type: ignore[arg-type]

    async def _drain(self) -> None:
        self._draining = True
        kept = {mailbox.stream for mailbox in self._mailboxes.values()}
        if running := [task for stream, task in self._tasks.items() if stream not in kept]:
            self._log(f"draining {len(running)} requests")
            await asyncio.wait(running, timeout=self._config.drain_timeout_s)
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=5)

    def _start_request(self, stream: Stream, inputs: Tensors, parameters: str) -> None:
        if stream.cancel_seen:  # the client left before its request came here
            self._sender.post_end(stream)
            return
        task = self._loop.create_task(self._run_request(stream, inputs, parameters))
        self._tasks[stream] = task
        task.add_done_callback(lambda done: self._after(stream, done))

    def _on_cancelled(self, streams: list[Stream]) -> None:
        self._loop.call_soon_threadsafe(self._cancel, streams)

    def _cancel(self, streams: list[Stream]) -> None:
        for stream in streams:
            if task := self._tasks.get(stream):
                task.cancel()

    def _after(self, stream: Stream, task: asyncio.Task[None]) -> None:
        """A task that was cancelled before its first step has run no line of its own: its stream is ended here."""
        del self._tasks[stream]
        if not task.cancelled():
            return
        if stream.cancel_seen:
            self._sender.post_end(stream)
        else:
            self._sender.post_error(stream, Unavailable("the server is shutting down"))

    async def _run_request(self, stream: Stream, inputs: Tensors, parameters: str) -> None:
        try:
            if "probe" in inputs:
                answer = await self._probe(wire.text(inputs, "probe") or "")
                self._sender.post_final(stream, wire.encode_probe(answer))
            elif wire.is_mailbox(inputs):
                await self._keep_mailbox(stream, inputs)
                self._sender.post_end(stream)
            else:
                await self._generate(stream, inputs, parameters)
        except BackendError as exc:
            self._sender.post_error(stream, exc)
        except Exception as exc:
            self._log(f"a request failed unexpectedly: {exc!r}")
            self._sender.post_error(stream, Internal(f"unexpected {type(exc).__name__}"))

    async def _generate(self, stream: Stream, inputs: Tensors, parameters: str) -> None:
        assert self._engine is not None
        if self._draining:
            raise Unavailable("the server is shutting down")
        stream.generation = wire.decode(inputs, parameters, self._engine.max_n)
        name = wire.mailbox(inputs, stream.request_id)
        stream.mailbox = self._mailboxes.get(name) if name is not None else None
        if stream.mailbox is None:
            await self._run(stream, stream.generation)
            return
        stream.mailbox.users += 1
        stream.mailbox.named = True
        try:
            await self._run(stream, stream.generation)
        finally:
            stream.mailbox.users -= 1

    async def _run(self, stream: Stream, generation: Generation) -> None:
        assert self._engine is not None
        last: Delta | None = None
        deltas = self._engine.generate(generation, f"hermes2-{next(self._numbers)}")
        try:
            async for last in deltas:
                self._sender.post(stream, last)
        finally:
            await deltas.aclose()
        if last is None or not last.finished:
            raise Internal("the engine ended the generation without finishing it")

    async def _keep_mailbox(self, stream: Stream, inputs: Tensors) -> None:
        """Until nobody has named it for a while: a client that closed it itself might do so while a response leaves, and
        such a request stays in Triton (24.10) for ever. One that names it later gets all by its own way."""
        name = wire.mailbox(inputs, stream.request_id)
        assert name is not None
        if self._draining:
            raise Unavailable("the server is shutting down")
        if name in self._mailboxes:
            raise InvalidArgument("is open already", "mailbox")
        mailbox = self._mailboxes[name] = Mailbox(stream)
        self._sender.post_opened(mailbox)
        try:
            while mailbox.users or mailbox.named:
                mailbox.named = False
                await asyncio.sleep(LINGER_S)
        finally:
            del self._mailboxes[name]

    async def _probe(self, what: str) -> str:
        assert self._engine is not None
        if what == "metrics":
            return self._engine.metrics() + self._own_metrics()
        if what != "health":
            raise InvalidArgument("must be health or metrics", "probe")
        try:
            await asyncio.wait_for(self._engine.ping(), self._config.health_timeout_s)
        except TimeoutError as exc:
            raise Unavailable(f"the engine's loop did not answer within {self._config.health_timeout_s:g} s") from exc
        return json.dumps({"status": "draining" if self._draining else "ok", "requests": self._requests()})

    def _requests(self) -> int:
        """Generations in the engine, queued or running; the probe that asks is not one."""
        return sum(stream.generation is not None for stream in self._tasks)

    def _own_metrics(self) -> str:
        return (
            "# HELP hermes2_engine_requests Generations in the engine, queued or running.\n"
            "# TYPE hermes2_engine_requests gauge\n"
            f"hermes2_engine_requests {self._requests()}\n"
        )
