"""One response of Triton's for what many streams gained: a request that stays open, to which other requests refer by its name.

A response costs stub, Triton and client about the same with one token in it as with a hundred. Streams of one client that
name its mailbox share its responses; what ends a stream still comes as its own request's last response.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .sender import Stream

LINGER_S = 2.0
"""So long at least a mailbox stays open that nobody names."""


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
