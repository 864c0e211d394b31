"""Who waits for the engine, and who is next: fair between tenants by the tokens that they were served.

Virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024): each tenant has a counter of the
tokens of its prompts, charged when they are admitted, and twice those of its answers, as they come. Next is the tenant with the
least; it is first come, first served within it. Who comes back from idleness is lifted to the least of those that wait, or to
who was admitted last: time that was not used cannot be saved. Knows no clock, and not how many slots there are.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator

PROMPT_WEIGHT = 1
ANSWER_WEIGHT = 2
"""The paper's weights: a token that is generated costs about as much as two that are read."""
MOST_IDLE = 1024
"""Tenants with nothing in the queue whose counters are remembered; the others start where those that wait are."""


class Wish:
    """A request that wants to be admitted."""

    def __init__(self, tenant: str, slots: int, prompt_tokens: int, *, patient: bool = False) -> None:
        """`patient`: nobody sits before it: it stands behind its tenant's others, and outside of what is bounded."""
        self.tenant = tenant
        self.slots = slots
        self.prompt_tokens = prompt_tokens
        self.patient = patient
        self.number = 0
        """Counts up with each that comes."""


class Line:
    """What one tenant waits for, and what it has had."""

    def __init__(self) -> None:
        self.counter = 0
        self.urgent: deque[Wish] = deque()
        self.patient: deque[Wish] = deque()

    @property
    def head(self) -> Wish:
        return self.urgent[0] if self.urgent else self.patient[0]

    def of(self, wish: Wish) -> deque[Wish]:
        return self.patient if wish.patient else self.urgent

    @property
    def is_empty(self) -> bool:
        return not (self.urgent or self.patient)


class Backlog:
    """Choosing looks at each tenant that waits, once; there are no more of them than requests that may wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, Line] = {}
        self._idle: OrderedDict[str, Line] = OrderedDict()
        self._comers = 0
        self._last = ""
        """Who was admitted last."""
        self.held: Counter[str] = Counter()
        """Slots of each tenant that has any."""
        self.bounded = 0
        """Wishes that wait, without the patient ones."""
        self.slots = 0
        """What they want together."""

    def __iter__(self) -> Iterator[Wish]:
        for line in self._waiting.values():
            yield from line.urgent
            yield from line.patient

    @property
    def tenants(self) -> int:
        """That wait."""
        return len(self._waiting)

    @property
    def active(self) -> int:
        """Tenants that wait or are served."""
        return len(self._waiting.keys() | self.held.keys())

    def counter(self, tenant: str) -> int:
        line = self._line(tenant)
        return line.counter if line is not None else 0

    def _line(self, tenant: str) -> Line | None:
        waiting = self._waiting.get(tenant)
        return waiting if waiting is not None else self._idle.get(tenant)

    def join(self, wish: Wish) -> None:
        self._comers += 1
        wish.number = self._comers
        line = self._waiting.get(wish.tenant)
        if line is None:
            known = self._idle.pop(wish.tenant, None)
            line = known if known is not None else Line()
            line.counter = max(line.counter, self._floor())
            self._waiting[wish.tenant] = line
        line.of(wish).append(wish)
        self._count(wish, 1)

    def _floor(self) -> int:
        return min((line.counter for line in self._waiting.values()), default=self.counter(self._last))

    def leave(self, wish: Wish) -> None:
        """It waits no more."""
        line = self._waiting[wish.tenant]
        line.of(wish).remove(wish)
        self._count(wish, -1)
        if line.is_empty:
            self._rest(wish.tenant, self._waiting.pop(wish.tenant))

    def _rest(self, tenant: str, line: Line) -> None:
        self._idle[tenant] = line
        if len(self._idle) > MOST_IDLE:
            self._idle.popitem(last=False)

    def _count(self, wish: Wish, by: int) -> None:
        if not wish.patient:
            self.bounded += by
            self.slots += by * wish.slots

    def next(self, may: Callable[[Wish], bool] = lambda wish: True) -> Wish | None:
        """Whose turn it is, of those that `may` go. Of equals, whose tenant has the fewest slots, and then who came first: who
        has none is not passed for ever."""

        def turn(wish: Wish) -> tuple[int, int, int]:
            return self._waiting[wish.tenant].counter, self.held[wish.tenant], wish.number

        return min(filter(may, (line.head for line in self._waiting.values())), key=turn, default=None)

    def admit(self, wish: Wish) -> None:
        line = self._waiting[wish.tenant]
        line.counter += PROMPT_WEIGHT * wish.prompt_tokens
        self._last = wish.tenant
        self.held[wish.tenant] += wish.slots
        self.leave(wish)

    def give_back(self, tenant: str, slots: int) -> None:
        self.held[tenant] -= slots
        if not self.held[tenant]:
            del self.held[tenant]

    def served(self, tenant: str, answer_tokens: int) -> None:
        line = self._line(tenant)
        if line is not None:
            line.counter += ANSWER_WEIGHT * answer_tokens

    def surplus(self, comer: Wish) -> Wish:
        """Who must go if there are too many: the newest of the tenant with the most of them. Of equals it is the one with the
        most slots, and then `comer`'s."""

        def much(tenant: str) -> tuple[int, int, bool]:
            return len(self._waiting[tenant].urgent), self.held[tenant], tenant == comer.tenant

        return self._waiting[max(self._waiting, key=much)].urgent[-1]
