"""The queue before the engine: by hand for each promise, and as a whole by a model that is driven at random."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Coroutine

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from frontend import settings as settings_module
from frontend.domain.errors import Overloaded
from frontend.runtime import fair_queue
from frontend.services.limits import pace as pace_module
from frontend.services.limits.pace import Pace
from frontend.services.limits.queue import LONGEST_RETRY_S, FairQueue, Place


class Clock:
    """The queue's; the event loop has its own."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Client:
    """One request: waits for its place, holds it until it is told to end."""

    def __init__(
        self, queue: FairQueue, tenant: str, choices: int = 1, prompt_tokens: int = 10, *, patient: bool = False
    ) -> None:
        self.tenant = tenant
        self.place: Place | None = None
        self.error: Overloaded | None = None
        self._end = asyncio.Event()
        self._queue = queue
        self.task = asyncio.ensure_future(self._run(choices, prompt_tokens, patient))

    async def _run(self, choices: int, prompt_tokens: int, patient: bool) -> None:
        try:
            async with self._queue.place(self.tenant, choices, prompt_tokens, patient=patient) as self.place:
                await self._end.wait()
        except Overloaded as exc:
            self.error = exc

    async def end(self) -> None:
        self._end.set()
        await self.task

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def settled() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


async def come(queue: FairQueue, *tenants: str, choices: int = 1, prompt_tokens: int = 10) -> list[Client]:
    clients = [Client(queue, tenant, choices, prompt_tokens) for tenant in tenants]
    await settled()
    return clients


def queue_of(slots: int, max_waiting: int = 100, max_wait_s: float = 600, clock: Clock | None = None) -> FairQueue:
    """Without the bounds that depend on how long slots are held and on what the engine reads, which have tests of their own."""
    clock = clock or Clock()
    return FairQueue(
        slots,
        max_waiting=max_waiting,
        max_wait_s=max_wait_s,
        wait_share=math.inf,
        pace=Pace(slots, slots_per_read_one=1),
        clock=clock,
    )


class TestSlots:
    async def test_who_comes_while_a_slot_is_free_does_not_wait(self) -> None:
        """It has its place without giving up the event loop."""
        queue = queue_of(1)
        async with queue.place("a", 1, 10) as place:
            assert (place.held, queue.free, queue.waiting) == (1, 0, 0)
        assert queue.free == 1

    async def test_a_slot_goes_to_the_next_as_soon_as_it_is_free(self) -> None:
        """First come, first served within a tenant."""
        queue = queue_of(1)
        first, second, third = await come(queue, "a", "a", "a")
        await first.end()
        await settled()
        assert second.place
        assert not third.place

    async def test_each_choice_gives_its_slot_back_when_it_ends(self) -> None:
        """A request of three choices, of which two have ended, holds one."""
        queue = queue_of(3)
        (wide,) = await come(queue, "a", choices=3)
        assert wide.place
        wide.place.shrink(1)
        assert queue.free == 2
        wide.place.shrink(1)
        await wide.end()
        assert queue.free == 3

    async def test_a_request_wider_than_all_slots_takes_them_all(self) -> None:
        """It is served, not refused."""
        queue = queue_of(2)
        (wide,) = await come(queue, "a", choices=8)
        assert wide.place
        assert wide.place.held == 2
        wide.place.shrink(7)
        assert queue.free == 0
        await wide.end()
        assert queue.free == 2

    async def test_narrow_requests_do_not_starve_a_wide_one(self) -> None:
        """While it waits for its slots, those that become free are kept for it."""
        queue = queue_of(4)
        narrow = await come(queue, "a", "a", "a", "a")
        (wide,) = await come(queue, "a", choices=4)
        late = await come(queue, "a", "a")
        for client in narrow:
            await client.end()
            await settled()
        assert wide.place
        assert not any(client.place for client in late)
        await wide.end()
        await settled()
        assert all(client.place for client in late)

    async def test_a_wide_one_that_leaves_lets_the_others_in(self) -> None:
        """The slots that were kept for it are theirs at once."""
        queue = queue_of(2)
        (running,) = await come(queue, "a")
        (wide,) = await come(queue, "a", choices=2)
        (late,) = await come(queue, "a")
        await wide.leave()
        await settled()
        assert late.place
        assert running.place
        await late.end()
        await running.end()
        assert queue.free == 2


class TestLeaving:
    async def test_who_leaves_while_waiting_is_gone(self) -> None:
        """Nothing waits for it any more, and its slot goes to the next."""
        queue = queue_of(1)
        running, gone, next_one = await come(queue, "a", "a", "a")
        await gone.leave()
        assert queue.waiting == 1
        await running.end()
        await settled()
        assert next_one.place

    async def test_who_leaves_in_the_moment_of_being_granted_a_place_gives_it_back(self) -> None:
        """Granted and cancelled before its task could run."""
        queue = queue_of(1)
        running, gone, next_one = await come(queue, "a", "a", "a")
        assert running.place
        queue.give_back(running.place, 1)
        gone.task.cancel()
        await settled()
        assert gone.task.cancelled()
        assert next_one.place
        await next_one.end()
        assert queue.free == 1

    async def test_who_has_left_is_not_granted_a_place(self) -> None:
        """Cancelled, and the slot becomes free before its task could run."""
        queue = queue_of(1)
        running, gone, next_one = await come(queue, "a", "a", "a")
        gone.task.cancel()
        await running.end()
        await settled()
        assert gone.task.cancelled()
        assert next_one.place
        await next_one.end()
        assert queue.free == 1


class TestBounds:
    async def test_one_more_than_may_wait_is_refused_at_once(self) -> None:
        """The newcomer, where one tenant has them all; with the code that says whose fault it is."""
        queue = queue_of(1, max_waiting=1)
        running, waiting, refused = await come(queue, "a", "a", "a")
        assert refused.error
        assert refused.error.code == "server_overloaded"
        assert not waiting.error
        assert queue.waiting == 1
        assert running.place

    async def test_without_a_queue_only_free_slots_are_given(self) -> None:
        """`max_waiting` 0."""
        queue = queue_of(1, max_waiting=0)
        running, refused = await come(queue, "a", "b")
        assert running.place
        assert refused.error

    async def test_who_has_the_most_waiting_loses_its_newest(self) -> None:
        """Another tenant's first request finds room in a full queue."""
        queue = queue_of(1, max_waiting=3)
        _, *crowd = await come(queue, "loud", "loud", "loud", "loud")
        (quiet,) = await come(queue, "quiet")
        assert [client.error is not None for client in crowd] == [False, False, True]
        assert not quiet.error
        assert queue.waiting == 3

    async def test_who_would_wait_too_long_is_refused_at_once(self) -> None:
        """One slot that is held for 10 s each time, and nobody is to wait longer than 12: what is estimated must be below."""
        clock = Clock()
        queue = queue_of(1, max_wait_s=12, clock=clock)
        for _ in range(50):
            (client,) = await come(queue, "a")
            clock.now += 10
            await client.end()
        running, refused = await come(queue, "a", "a")
        assert running.place
        assert refused.error
        assert refused.error.retry_after_s == pytest.approx(10, rel=0.05)

    async def test_who_comes_long_before_the_next_slot_is_free_is_told_when(self) -> None:
        """Answers of 8 s that began together: who comes 2 s before their end is refused, who comes just before it waits."""
        clock = Clock()
        queue = FairQueue(8, max_waiting=8, max_wait_s=100, pace=Pace(8, 1), clock=clock)
        for _ in range(10):
            clients = await come(queue, *"aaaaaaaa")
            clock.now += 8
            for client in clients:
                await client.end()
        running = await come(queue, *"aaaaaaaa")
        clock.now += 6
        (early,) = await come(queue, "a")
        clock.now += 1.8
        (late,) = await come(queue, "a")
        assert early.error
        assert early.error.retry_after_s == pytest.approx(2, rel=0.1)
        assert not late.error
        await running[0].end()
        await settled()
        assert late.place

    async def test_who_has_less_than_its_share_waits_for_it(self) -> None:
        """Where another tenant's equally long answers have all slots: half a second is not too long for its first."""
        clock = Clock()
        queue = FairQueue(8, max_waiting=8, max_wait_s=4, pace=Pace(8, 1), clock=clock)
        for _ in range(50):
            clients = await come(queue, *["loud"] * 8)
            clock.now += 2
            for client in clients:
                await client.end()
        running = await come(queue, *["loud"] * 8)
        clock.now += 1.5
        (loud,) = await come(queue, "loud")
        (quiet,) = await come(queue, "quiet")
        assert loud.error
        assert not quiet.error
        await running[0].end()
        await settled()
        assert quiet.place

    @pytest.mark.parametrize("set_", [False, True])
    async def test_who_sets_how_many_may_wait_gets_so_many(self, set_: bool) -> None:
        """However long it takes, below what nobody waits for; otherwise those wait that have a slot soon."""
        variables = {"HERMES2_ADMISSION_SLOTS": "1"} | ({"HERMES2_ADMISSION_MAX_WAITING": "1"} if set_ else {})
        queue = fair_queue(settings_module.load(variables))
        (ended,) = await come(queue, "a")
        await ended.end()
        queue._held_s = 2
        running, second = await come(queue, "a", "a")
        assert (second.error is None) is set_
        await running.end()

    async def test_before_any_answer_has_ended_nobody_is_refused_for_its_length(self) -> None:
        """A service that has just started knows nothing of it: who comes waits."""
        queue = FairQueue(1, max_waiting=8, max_wait_s=4, clock=Clock())
        _, waiting = await come(queue, "a", "a")
        assert not waiting.error

    async def test_who_has_waited_too_long_is_refused(self) -> None:
        """In the order in which they came; who came later goes on waiting."""
        clock = Clock()
        queue = queue_of(1, max_wait_s=0.01, clock=clock)
        queue._held_s = 0.001
        running, early = await come(queue, "a", "a")
        clock.now += 0.006
        (late,) = await come(queue, "a")
        clock.now += 0.006
        async with asyncio.timeout(5):
            await early.task
        assert early.error
        assert not late.error
        assert running.place
        clock.now += 0.006
        async with asyncio.timeout(5):
            await late.task
        assert late.error
        assert queue.waiting == 0

    async def test_the_patient_are_neither_counted_nor_refused(self) -> None:
        """They wait behind their tenant's others, and outside of the bound."""
        clock = Clock()
        queue = queue_of(1, max_waiting=1, max_wait_s=6, clock=clock)
        (running,) = await come(queue, "a")
        patient = [Client(queue, "a", patient=True) for _ in range(3)]
        await settled()
        (urgent,) = await come(queue, "a")
        assert not urgent.error
        assert queue.waiting == 4
        await running.end()
        await settled()
        assert urgent.place
        assert not any(client.place for client in patient)
        clock.now += 100
        await urgent.end()
        for client in patient:
            await settled()
            assert client.place
            await client.end()


class TestRetryAfter:
    async def test_it_is_as_long_as_the_queue_takes(self) -> None:
        """Two slots that are held for 3 s each, and four that want one: two rounds."""
        clock = Clock()
        queue = queue_of(2, max_waiting=3, clock=clock)
        for _ in range(50):
            clients = await come(queue, "a", "a")
            clock.now += 3
            for client in clients:
                await client.end()
        *_, refused = await come(queue, *"aaaaaa")
        assert refused.error
        assert refused.error.retry_after_s == pytest.approx(6, rel=0.05)

    async def test_those_that_are_told_to_come_again_are_told_different_times(self) -> None:
        """Two for each slot that there will be; other tenants do not wait behind them."""
        queue = queue_of(1, max_waiting=2)
        _, _, _, *refused = await come(queue, *"aaaaaaa")
        told = [client.error.retry_after_s for client in refused if client.error]
        assert told == pytest.approx([3, 3.5, 4, 4.5])
        first, second = await come(queue, "b", "b")
        assert second.error
        assert second.error.retry_after_s < 4.5
        assert not first.error

    async def test_it_has_an_end(self) -> None:
        """However many were refused."""
        queue = queue_of(1, max_waiting=0)
        _, *refused = await come(queue, *"a" * 200)
        assert refused[-1].error
        assert refused[-1].error.retry_after_s == LONGEST_RETRY_S


class TestTheSlotThatIsKept:
    async def test_one_tenant_does_not_take_the_last(self) -> None:
        """Another finds a slot at once, and its next one waits for the first slot that becomes free."""
        queue = queue_of(16)
        loud = await come(queue, *["loud"] * 20)
        assert sum(client.place is not None for client in loud) == 15
        first, second = await come(queue, "quiet", "quiet")
        assert first.place
        assert not second.place
        queue._backlog.served("loud", 10)
        await loud[0].end()
        await settled()
        assert second.place

    async def test_who_may_have_it_does_not_wait_behind_those_that_may_not(self) -> None:
        """Though it was served more than they were, and it is their turn."""
        queue = queue_of(16)
        _loud = await come(queue, *["loud"] * 20)
        (quiet,) = await come(queue, "quiet")
        await quiet.end()
        queue._backlog.served("quiet", 400)
        (quiet,) = await come(queue, "quiet")
        assert quiet.place

    async def test_a_crowd_of_tenants_does_not_take_it_either(self) -> None:
        """Three that all want more share the others."""
        queue = queue_of(16)
        await come(queue, *["a", "b", "c"] * 8)
        assert queue.free == 1
        (quiet,) = await come(queue, "quiet")
        assert quiet.place

    async def test_of_two_that_have_as_many_waiting_the_one_with_more_slots_gives_way(self) -> None:
        """A loud tenant's only waiting request against a quiet one's."""
        queue = queue_of(1, max_waiting=1)
        _, loud = await come(queue, "loud", "loud")
        (quiet,) = await come(queue, "quiet")
        assert loud.error
        assert not quiet.error


class TestWhatWasUsedLately:
    """A tenant that asks often finds its slots free, beside one that would take them all."""

    async def answers(self, queue: FairQueue, clock: Clock, *tenants: str) -> None:
        """A second of theirs."""
        clients = await come(queue, *tenants, prompt_tokens=0)
        clock.now += 1
        for client in clients:
            await client.end()

    async def test_as_many_slots_are_kept_as_it_used(self) -> None:
        """Two on average, and one or two more, as it does not come evenly."""
        clock = Clock()
        queue = queue_of(16, clock=clock)
        for _ in range(20):
            await self.answers(queue, clock, "quiet", "quiet")
        loud = await come(queue, *["loud"] * 20)
        assert sum(client.place is not None for client in loud) == 13
        quiet = await come(queue, *["quiet"] * 3)
        assert all(client.place for client in quiet)
        await loud[0].end()
        await settled()
        assert sum(client.place is not None for client in loud) == 13  # what it left is for who is neither

    async def test_it_is_forgotten(self) -> None:
        """Who has gone keeps nothing for longer than an answer takes."""
        clock = Clock()
        queue = queue_of(16, clock=clock)
        for _ in range(20):
            await self.answers(queue, clock, "quiet", "quiet")
        clock.now += 1.1
        loud = await come(queue, *["loud"] * 20)
        assert sum(client.place is not None for client in loud) == 15

    async def test_nobody_keeps_more_than_its_share(self) -> None:
        """One that had all slots a moment ago: five of 16 beside two others, and two more, less the one that the third holds."""
        clock = Clock()
        queue = queue_of(16, clock=clock)
        for _ in range(20):
            await self.answers(queue, clock, *["other"] * 16)
        third = await come(queue, "third")
        loud = await come(queue, *["loud"] * 20)
        assert third[0].place
        assert sum(client.place is not None for client in loud) == 16 - 1 - (5 + 2 - 1)

    async def test_a_wide_request_gets_what_is_kept_once_the_others_have_ended(self) -> None:
        """It would wait for ever otherwise."""
        clock = Clock()
        queue = queue_of(16, clock=clock)
        for _ in range(20):
            await self.answers(queue, clock, "quiet", "quiet")
        (wide,) = await come(queue, "loud", choices=15)
        assert wide.place


class TestReading:
    """The engine gets an eighth of the slots' prompts at a time."""

    @staticmethod
    def queue_of(clock: Clock | None = None) -> FairQueue:
        return FairQueue(16, max_waiting=1, max_wait_s=600, clock=clock or Clock())

    async def test_the_next_is_let_in_with_a_first_token(self) -> None:
        """Until a tenant has its share, which is a half of the slots for one that is alone, they all go at once."""
        queue = self.queue_of()
        clients = await come(queue, *["a"] * 14)
        assert [client.place is not None for client in clients] == [True] * 8 + [False] * 6
        assert not any(client.error for client in clients)
        for read in range(8):
            place = clients[read].place
            assert place
            place.served(0)
            assert queue.waiting == 6 - max(0, read - 6)
            place.served(1)
            place.served(1)
            await settled()
            assert queue.waiting == 6 - max(0, read - 5)

    async def test_one_that_ends_without_a_token_is_read_too(self) -> None:
        """It failed, or its client left."""
        queue = self.queue_of()
        clients = await come(queue, *["a"] * 9)
        for client in clients[:7]:
            await client.end()
        await settled()
        assert clients[8].place

    async def test_nobody_waits_long_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A prompt may be very long, and the engine reads others beside it."""
        monkeypatch.setattr(pace_module, "LONGEST_READ_S", 0.02)
        clock = Clock()
        queue = self.queue_of(clock)
        clients = await come(queue, *["a"] * 9)
        assert not clients[8].place
        clock.now += 1
        async with asyncio.timeout(5):
            while not clients[8].place:
                await asyncio.sleep(0.01)

    async def test_while_some_are_refused_the_others_are_let_in_one_by_one(self) -> None:
        """In half of the time between two ends, so that they will end one by one, too; for as long as a slot is held."""
        clock = Clock()
        queue = FairQueue(16, max_waiting=1, max_wait_s=600, pace=Pace(16, 1), clock=clock)
        queue._held_s = 3.2
        first = await come(queue, *["a"] * 15)
        *_, refused = await come(queue, "a", "a")
        assert refused.error
        for client in first:
            await client.end()
        assert (queue.free, queue.waiting) == (15, 0)  # the one that waited has its slot
        _more = await come(queue, *["a"] * 7)  # kept: asyncio does not keep a task that waits
        third = await come(queue, "a", "a")
        assert [client.place is not None for client in third] == [False, False]
        for waiting in (1, 0):
            clock.now += 0.11
            queue._look_again()
            await settled()
            assert queue.waiting == waiting
        clock.now += 4
        last = await come(queue, "a", "a", "a")
        assert all(client.place for client in last)

    async def test_who_has_less_than_its_share_does_not_wait_for_it(self) -> None:
        """Whatever others have sent."""
        queue = self.queue_of()
        _loud = await come(queue, *["loud"] * 9)
        (quiet,) = await come(queue, "quiet")
        assert quiet.place


class TestFairness:
    async def test_the_tenant_that_was_served_least_is_next(self) -> None:
        """Whoever came first, and however many wait beside it."""
        queue = queue_of(1)
        (running,) = await come(queue, "loud", prompt_tokens=100)
        loud = await come(queue, "loud", "loud", prompt_tokens=100)
        (quiet,) = await come(queue, "quiet")
        queue._backlog.served("loud", 1)
        await running.end()
        await settled()
        assert quiet.place
        assert not any(client.place for client in loud)

    async def test_an_answer_s_tokens_count_twice_those_of_a_prompt(self) -> None:
        """30 tokens of an answer are more than 50 of a prompt."""
        queue = queue_of(2)
        reads, writes = await come(queue, "reads", "writes", prompt_tokens=0)
        late = await come(queue, "writes", "reads", prompt_tokens=0)
        queue._backlog.served("writes", 30)
        assert writes.place
        assert reads.place
        reads.place.prompt_tokens = 0
        queue._backlog.served("reads", 25)
        await writes.end()
        await settled()
        assert late[1].place
        assert not late[0].place

    async def test_what_a_tenant_has_had_is_remembered_while_it_has_nothing_waiting(self) -> None:
        """One after the other, none of which waits: they all count."""
        queue = queue_of(2)
        for _ in range(3):
            (client,) = await come(queue, "busy", prompt_tokens=100)
            await client.end()
        assert queue._backlog.counter("busy") == 300
        queue._backlog.served("busy", 50)
        assert queue._backlog.counter("busy") == 400

    async def test_idleness_is_not_saved_up(self) -> None:
        """Who comes after a long time is next once, and then in turn."""
        queue = queue_of(1)
        for _ in range(20):
            (client,) = await come(queue, "busy", prompt_tokens=1000)
            await client.end()
        (running,) = await come(queue, "busy", prompt_tokens=1000)
        order: list[str] = []
        clients = await come(queue, "new", "busy", "new", "busy", "new", "busy", prompt_tokens=1000)
        await running.end()
        for _ in clients:
            await settled()
            served = next(client for client in clients if client.place and not client.task.done())
            order.append(served.tenant)
            await served.end()
        assert Counter(order[:4]) == {"new": 2, "busy": 2}


SLOTS, MAX_WAITING = 16, 4


class QueueMachine(RuleBasedStateMachine):
    """Whatever comes, ends, leaves, and in whatever order tasks run."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clients: list[Client] = []
        self.patient: list[Client] = []
        self.clock = Clock()

        async def make() -> FairQueue:
            return FairQueue(SLOTS, max_waiting=MAX_WAITING, max_wait_s=600, wait_share=math.inf, clock=self.clock)

        self.queue = self.run(make())

    def run(self, work: Coroutine[None, None, FairQueue]) -> FairQueue:
        return self.loop.run_until_complete(work)

    def step(self, times: int = 1) -> None:
        async def turn() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    @property
    def holding(self) -> list[Client]:
        return [client for client in self.clients if client.place is not None and not client.task.done()]

    @property
    def waits(self) -> list[Client]:
        return [client for client in self.clients if client.place is None and not client.task.done()]

    @rule(tenant=st.sampled_from("abc"), choices=st.integers(1, 20), prompt=st.integers(1, 50), patient=st.booleans())
    def one_comes(self, tenant: str, choices: int, prompt: int, patient: bool) -> None:
        self.comes(tenant, choices, prompt, patient)

    def comes(self, tenant: str, choices: int, prompt: int, patient: bool) -> None:
        async def start() -> Client:
            return Client(self.queue, tenant, choices, prompt, patient=patient)

        client = self.loop.run_until_complete(start())
        self.clients.append(client)
        if patient:
            self.patient.append(client)

    @rule(tenants=st.lists(st.sampled_from("abc"), min_size=4, max_size=12), choices=st.integers(1, 3))
    def a_crowd_comes(self, tenants: list[str], choices: int) -> None:
        for tenant in tenants:
            self.comes(tenant, choices, 10, patient=False)
        self.step()

    @precondition(lambda self: self.holding)
    @rule(data=st.data(), tokens=st.integers(0, 20), left=st.integers(0, 3))
    def hears(self, data: st.DataObject, tokens: int, left: int) -> None:
        place = data.draw(st.sampled_from(self.holding)).place
        assert place is not None

        async def hear() -> None:
            place.served(tokens)
            place.shrink(left)

        self.loop.run_until_complete(hear())

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.holding))._end.set()

    @precondition(lambda self: not all(client.task.done() for client in self.clients))
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([c for c in self.clients if not c.task.done()])).task.cancel()

    @rule(times=st.integers(1, 3))
    def time_passes(self, times: int) -> None:
        self.step(times)

    @invariant()
    def slots_are_as_many_as_there_were(self) -> None:
        held = sum(client.place.held for client in self.holding if client.place is not None)
        assert 0 <= self.queue.free <= SLOTS
        assert held <= SLOTS - self.queue.free  # what was granted a moment ago has not been seen yet

    @invariant()
    def no_more_wait_than_may(self) -> None:
        assert self.queue._backlog.bounded <= MAX_WAITING + SLOTS  # for each slot that was free one may wait to be read

    @rule()
    def when_all_tasks_have_run_nothing_waits_that_could_go(self) -> None:
        """Work-conserving, but for what the engine has to read first, the slots that are kept, and the one whose turn it is,
        if it is too wide for what is free."""
        self.step(6)
        held = sum(client.place.held for client in self.holding if client.place is not None)
        assert held == SLOTS - self.queue.free
        assert len(self.waits) == self.queue.waiting
        first = self.queue._backlog.next()
        assert first is None or not self.queue._fits(first)

        if first is not None and self.queue._wait_for_pace_s() <= 0:
            assert first.slots > self.queue.free - self.queue._kept_from(first)
        assert not any(client.error for client in self.patient)

    def teardown(self) -> None:
        """Everybody is served in the end, and every slot comes back."""

        async def long_after() -> None:
            self.clock.now += 10
            self.queue._look_again()

        self.step(6)
        for _ in range(len(self.clients) + 1):
            for client in self.holding:
                client._end.set()
            self.loop.run_until_complete(long_after())
            self.step(6)
        assert not self.waits
        assert not self.holding
        assert (self.queue.free, self.queue.waiting, self.queue._backlog.slots) == (SLOTS, 0, 0)
        self.loop.close()


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


LONGEST_PROMPT, LONGEST_ANSWER = 200, 60


class Simulation:
    """Tenants that always have something waiting; answers go on a token at a time, all at once."""

    def __init__(self, seed: int, tenants: int, slots: int) -> None:
        self.random = random.Random(seed)  # noqa: S311  # nobody guesses it
        self.queue = queue_of(slots, max_waiting=1000)
        self.tenants = [f"tenant-{number}" for number in range(tenants)]
        self.left: dict[Client, int] = {}
        """Tokens that each will still say."""
        self.served: Counter[str] = Counter()

    def fill(self, each: int) -> None:
        waiting = Counter(client.tenant for client in self.left if client.place is None)
        for tenant in self.tenants:
            for _ in range(each - waiting[tenant]):
                choices, prompt = self.random.choice([1, 1, 1, 3]), self.random.randint(1, LONGEST_PROMPT)
                client = Client(self.queue, tenant, choices, prompt)
                self.left[client] = self.random.randint(1, LONGEST_ANSWER)

    async def step(self) -> None:
        for client, left in list(self.left.items()):
            if client.place is None:
                continue
            if left == 0:
                del self.left[client]
                self.served[client.tenant] += client.place.prompt_tokens
                await client.end()
                continue
            client.place.served(client.place.slots)
            self.served[client.tenant] += 2 * client.place.slots
            self.left[client] = left - 1
        await settled()

    async def stop(self) -> None:
        """Everybody leaves."""
        for client in self.left:
            client.task.cancel()
        await asyncio.wait([client.task for client in self.left])


@pytest.mark.parametrize("seed", range(3))
async def test_backlogged_tenants_are_served_alike(seed: int) -> None:
    """However long the run, they differ by less than what fits into the engine at once: the bound of the paper."""
    slots = 6
    simulation = Simulation(seed, tenants=3, slots=slots)
    for _ in range(3000):
        simulation.fill(8)
        await simulation.step()
    most, least = max(simulation.served.values()), min(simulation.served.values())
    assert least > 10_000
    assert most - least <= 2 * max(LONGEST_PROMPT, 2 * slots * LONGEST_ANSWER)
    await simulation.stop()
    assert simulation.queue.free == slots


async def test_a_quiet_tenant_does_not_wait_behind_a_loud_one() -> None:
    """Twenty times its load beside it: its next request is the next to be admitted, always."""
    simulation = Simulation(7, tenants=1, slots=4)
    waits = []
    for round_ in range(300):
        simulation.fill(20)
        await settled()
        if round_ % 10 == 0:
            quiet = Client(simulation.queue, "quiet", 1, 20)
            steps = 0
            while quiet.place is None:
                await simulation.step()
                steps += 1
            waits.append(steps)
            quiet.place.served(5)
            await quiet.end()
        await simulation.step()
    assert max(waits) <= LONGEST_ANSWER + 2
    await simulation.stop()
