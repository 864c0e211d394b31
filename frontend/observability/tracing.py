"""Spans: what a request did and how long each step of it took. Knows no SDK and no exporter; see otel.py for those.

    with tracing.span("prompt.build") as span:     # a step of the request that this task works for
        span.set("hermes2.prompt_tokens", 12)

While nothing is exported, and outside of requests, `span` gives one shared object that records nothing. Attributes are ids,
counts and names: never a text of a user, a document or a model, and never a key.

A step that lasts longer than one call of an async generator is `start`ed and `end`ed: between two of its items the generator's
reader goes on with steps of its own, which are none of the generator's. A `with` around a `yield` would make them so.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Protocol, TypeAlias

from frontend.domain.errors import ServiceError

Value: TypeAlias = "str | bool | int | float | Sequence[str]"


class Span(Protocol):
    recording: bool
    """False: whatever it is told is forgotten, so that nobody need compute it."""
    traceparent: str | None
    """For those who are asked to do a part of this step; W3C Trace Context."""

    def rename(self, name: str) -> None:
        """Its name is known better now."""

    def set(self, name: str, value: Value) -> None: ...

    def event(self, name: str) -> None:
        """Something that has happened just now."""

    def fail(self, error: BaseException) -> None:
        """The step has come to nothing. Of the error only its code or class is recorded: messages quote what was sent."""

    def broken(self) -> None:
        """It has failed, and that is nobody else's doing."""

    def end(self) -> None: ...

    def __enter__(self) -> Span:
        """From now on it is the parent of what this task begins; when it is left, it ends."""

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Nothing:
    """Where nothing is recorded."""

    recording = False
    traceparent: str | None = None

    def rename(self, name: str) -> None: ...

    def set(self, name: str, value: Value) -> None: ...

    def event(self, name: str) -> None: ...

    def fail(self, error: BaseException) -> None: ...

    def broken(self) -> None: ...

    def end(self) -> None: ...

    def __enter__(self) -> Nothing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracer(Protocol):
    """What makes spans that are recorded."""

    def server(self, name: str, traceparent: str | None, tracestate: str) -> Span:
        """The span of a request, below the client's own if it sent one."""

    def child(self, name: str, parent: Span, *, calls: bool) -> Span:
        """`calls`: another process does the work."""


NOTHING = Nothing()
CANCELLED = "cancelled"
CURRENT: ContextVar[Span | None] = ContextVar("hermes2_span", default=None)
"""What this task works at; tasks that it starts inherit it."""


class Tracing:
    """Whether this process records spans."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None


PROCESS = Tracing()


def is_on() -> bool:
    return PROCESS.tracer is not None


def server_span(name: str, traceparent: str | None, tracestate: str) -> Span:
    """Of a request; whoever enters it makes it the parent of all spans of the request."""
    tracer = PROCESS.tracer
    return NOTHING if tracer is None else tracer.server(name, traceparent, tracestate)


def span(name: str, *, calls: bool = False) -> Span:
    """A step of the request that this task works for, to be entered at once. `calls`: another process does it."""
    tracer = PROCESS.tracer
    if tracer is None or (parent := CURRENT.get()) is None:
        return NOTHING
    return tracer.child(name, parent, calls=calls)


start = span
"""The same for a step that is not entered, but ended by hand: nothing becomes its child."""


def outside() -> contextvars.Context:
    """For a task that a request starts, and that does not belong to it: `create_task(work, context=outside())`."""
    context = contextvars.copy_context()
    context.run(CURRENT.set, None)
    return context


def name_of(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED
    return (error.code if isinstance(error, ServiceError) else None) or type(error).__name__
