"""Requests on their way back: each has a stream of its own, and those of one client may share a mailbox.

A mailbox is one response of Triton's for what many streams gained: a request that stays open, to which other requests refer by
its name. A response costs stub, Triton and client about the same with one token in it as with a hundred. What ends a stream
still comes as its own request's last response.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import BackendError
from .generation import Delta, Generation

LINGER_S = 2.0
"""So long at least a mailbox stays open that nobody names."""

Tensors = Mapping[str, NDArray[np.generic]]


class Responder(Protocol):
    """Triton's response sender for one request, with tensors as numpy arrays. Used by the sender's thread only."""

    def send(self, tensors: Tensors, final: bool) -> None: ...

    def fail(self, error: BackendError) -> None:
        """Triton's own error, final."""

    def end(self) -> None:
        """Final flag without data."""

    def is_cancelled(self) -> bool: ...


@dataclass(eq=False, slots=True)
class Stream:
    """One request on its way back. The loop thread writes `pending` under the sender's lock, the sender empties it."""

    responder: Responder
    structured_errors: bool
    request_id: str = ""
    """Triton's."""
    generation: Generation | None = None
    mailbox: Mailbox | None = None
    """By which all deltas go but the last."""
    num_mailed: int = 0
    is_mailbox: bool = False
    """It is held back for others' sake, and nobody is for its own."""
    pending: Delta | None = None
    last_sent: float | None = None
    cancel_seen: bool = False
    """The client has left."""
    closed: bool = False


@dataclass(eq=False, slots=True)
class Mailbox:
    """`users` and `named` belong to the loop thread; all else is written under the sender's lock."""

    stream: Stream
    """The way of its own request."""
    users: int = 0
    """Generations that name it."""
    named: bool = True
    """Since it was last looked at."""
    waiting: list[Stream] = field(default_factory=list)
    """Those with something pending."""
    last_sent: float = -math.inf
    due: float = math.inf
    """When the next one leaves, if something waits."""
