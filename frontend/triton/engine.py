"""The engine port over gRPC: one ModelStreamInfer call per generation, and one for what many gain together, on one channel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from typing import Any, NoReturn

import grpc
from tritonclient.grpc import service_pb2_grpc

from frontend.domain import ids
from frontend.domain.errors import Internal, InvalidRequest, ServiceError, Timeout, Unavailable
from frontend.domain.generation import Constraint, GenerationDelta, GenerationRequest
from frontend.observability import tracing
from frontend.triton import wire
from frontend.triton.generation_span import traced
from frontend.triton.mailbox import Inbox, Mailbox
from frontend.triton.wire import WireError

CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 2**20),
    ("grpc.max_send_message_length", 64 * 2**20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Triton comes back on the same address after a restart: look again soon, not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 250),
]
PROBE_TIMEOUT_S = 6.0
RETRY_PAUSE_S = 0.3
"""Longer than the longest pause between two connection attempts: the retry finds a Triton that has just come back."""
RESTART_S = 15.0
"""Retry-After while the engine is away: about a third of the time that it takes to load."""


class ConnectionLost(Unavailable):
    """Triton could not be reached, or went away; nothing is known of the request."""


class TritonEngine:
    def __init__(self, channel: grpc.aio.Channel, request_timeout_s: float) -> None:
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._timeout_s = request_timeout_s
        self._mailbox = Mailbox(lambda message: self._call(message, None))

    def generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        return traced(request, self._generate) if tracing.is_on() else self._generate(request)

    async def _generate(self, request: GenerationRequest) -> AsyncGenerator[GenerationDelta, None]:
        open_choices = request.sampling.n
        shared = self._mailbox.stream() if wire.fits_letters(request) else nullcontext()
        with named_constraint(request.constraint), shared as mailbox:
            async with aclosing(self._deltas(request, mailbox)) as deltas:
                async for delta in deltas:
                    open_choices -= sum(choice.finish_reason is not None for choice in delta.choices)
                    if delta.choices:
                        yield delta
        if open_choices:
            raise Unavailable("The engine ended the generation before it was finished.", retry_after_s=RESTART_S)

    def _deltas(self, request: GenerationRequest, mailbox: str | None) -> AsyncGenerator[GenerationDelta, None]:
        request_id = ids.new("req-")
        message = wire.generate_request(request, request_id, mailbox)
        if mailbox is None:
            return self._own_deltas(request, message)
        inbox = Inbox(request, mailbox)
        return self._mailbox.deltas(request_id, inbox, self._infer(message, self._timeout_s, lambda: inbox.has_mail))

    async def _own_deltas(self, request: GenerationRequest, message: Any) -> AsyncGenerator[GenerationDelta, None]:
        async with aclosing(self._infer(message, self._timeout_s)) as responses:
            async for raw in responses:
                yield wire.parse_delta(raw, request)

    async def check(self) -> None:
        await self._probe("health")

    async def metrics(self) -> str:
        return await self._probe("metrics")

    async def _probe(self, what: str) -> str:
        """Reads to the end: a call that is cancelled while its last response leaves stays in Triton (24.10) for ever, and
        the model cannot be unloaded; of 400 probes, 8 at a time, one at least did, and the service took 36 s to stop."""
        async with aclosing(self._infer(wire.probe_request(what), PROBE_TIMEOUT_S)) as responses:
            answers = [wire.parse_probe(raw) async for raw in responses]
        if not answers:
            raise Unavailable("The engine did not answer.", retry_after_s=RESTART_S)
        return answers[0]

    async def _infer(
        self, message: Any, timeout_s: float, has_mail: Callable[[], bool] = lambda: False
    ) -> AsyncGenerator[dict[str, bytes], None]:
        """The responses to one request; tried once more if the connection fails before there is anything of it."""
        for last_try in (False, True):
            answered = False
            try:
                async with aclosing(self._call(message, timeout_s)) as responses:
                    async for raw in responses:
                        answered = True
                        yield raw
                return
            except ConnectionLost:
                if answered or has_mail() or last_try:
                    raise
                await asyncio.sleep(RETRY_PAUSE_S)

    async def _call(self, message: Any, timeout_s: float | None) -> AsyncGenerator[dict[str, bytes], None]:
        """The responses to one request as raw outputs by name. Closing it cancels the request in Triton."""
        call = self._stub.ModelStreamInfer(timeout=timeout_s)
        try:
            await call.write(message)
            await call.done_writing()
            while (response := await call.read()) is not grpc.aio.EOF:
                if response.error_message:
                    raise Unavailable(
                        f"The engine is not available ({response.error_message}).", retry_after_s=RESTART_S
                    )
                raw = wire.raw_outputs(response.infer_response)
                if error := wire.parse_error(raw):
                    fail(error)
                if raw:
                    yield raw
        except (grpc.RpcError, asyncio.InvalidStateError) as exc:
            raise translate(exc) from exc
        finally:
            call.cancel()


def translate(exc: Exception) -> ServiceError:
    code = exc.code() if isinstance(exc, grpc.aio.AioRpcError) else None
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Timeout("The generation took longer than a request may.")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return Internal("The reply with its log probabilities is too large.")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return Internal(f"Triton refused the request: {exc}")
    return ConnectionLost("The engine is not available.", retry_after_s=RESTART_S)


def fail(error: WireError) -> NoReturn:
    if error.code == "INVALID_ARG":
        raise InvalidRequest(error.message, param=error.param)
    if error.code == "UNAVAILABLE":
        raise Unavailable(error.message)
    raise Internal(error.message)


@contextmanager
def named_constraint(constraint: Constraint | None) -> Iterator[None]:
    """The engine's word for what a client calls response_format or tools."""
    try:
        yield
    except InvalidRequest as exc:
        if constraint is None or exc.param != "structured_outputs":
            raise
        param = "response_format" if constraint.tools is None else "tools"
        raise InvalidRequest(f"The JSON schema cannot be enforced: {exc.message.rstrip('.')}.", param=param) from exc


@asynccontextmanager
async def open_engine(address: str, request_timeout_s: float) -> AsyncIterator[TritonEngine]:
    """`address`: host:port of Triton's gRPC server. Connects when first used, and again after a restart."""
    async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        yield TritonEngine(channel, request_timeout_s)
