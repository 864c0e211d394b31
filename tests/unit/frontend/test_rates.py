"""The arithmetic of limits, and of the share that a process has alone."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from frontend.domain.limits import MOST, UNLIMITED, Account, Limits
from frontend.services.limits import rates
from frontend.services.limits.local import LocalLimiter
from frontend.services.limits.rates import BURST_US, MINUTE_US

limits = st.integers(1, MOST)
workers = st.integers(1, 64)


@given(limit=limits, cost=st.integers(1, MOST), share=st.fractions(0, 1), workers=workers)
def test_the_wait_is_the_shortest_that_helps(limit: int, cost: int, share: float, workers: int) -> None:
    """After it the same may be had; a microsecond before it not."""
    owed = int(limit * MINUTE_US * workers * share)
    wait_us = rates.wait_us(owed, limit, cost, workers)
    assert (wait_us is None) == (cost > limit)
    assume(wait_us)
    assert wait_us is not None
    assert rates.wait_us(rates.drained(owed, limit, wait_us, workers), limit, cost, workers) == 0
    assert rates.wait_us(rates.drained(owed, limit, wait_us - 1, workers), limit, cost, workers) != 0


@given(limit=limits, owed=st.integers(0, 10**18))
def test_every_number_is_exact_in_a_double(limit: int, owed: int) -> None:
    """Up to the largest limit: what is owed, and what is added to it."""
    most = rates.drained(owed, limit, 0) + limit * MINUTE_US
    assert most + limit * BURST_US < 2**53
    assert float(most) == most


@given(back=st.integers(1, MOST), limit=limits, owed=st.integers(0, 10**15), elapsed_us=st.integers(0, MINUTE_US))
def test_no_more_comes_back_than_is_owed(back: int, limit: int, owed: int, elapsed_us: int) -> None:
    """And never more than was not used."""
    units = rates.returned(back, owed, limit, elapsed_us)
    assert 0 <= units <= back * MINUTE_US
    assert units <= max(0, owed - limit * elapsed_us)
    assert rates.returned(-back, owed, limit, elapsed_us) == -back * MINUTE_US, "more was used than taken"


async def test_what_valkey_has_granted_locks_nobody_out() -> None:
    """A process that has served everything for a minute waits for one request of its share, when it is alone."""
    now_us = [0]
    limiter = LocalLimiter(4, lambda: now_us[0])
    own = Account(tenant="acme", key_id="key_1", of_tenant=Limits(requests_per_minute=60), of_key=UNLIMITED)
    for _ in range(70):
        limiter.mirror(rates.subjects_of(own), 0, "")
    now_us[0] += 4_000_000
    grant = await limiter.acquire(own, 0, lease=False)
    assert grant.local is True
    assert grant.standing.requests is not None
    assert (grant.standing.requests.limit, grant.standing.requests.remaining) == (60, 0)


async def test_what_is_as_good_as_never_seen_is_forgotten() -> None:
    """The memory of a process does not grow with the keys that it has seen."""
    now_us = [0]
    limiter = LocalLimiter(1, lambda: now_us[0])
    for number in range(3):
        own = Account(
            tenant=f"tenant_{number}", key_id="key", of_tenant=Limits(requests_per_minute=60), of_key=UNLIMITED
        )
        await limiter.acquire(own, 0, lease=number == 0)
    limiter.forget()
    assert len(limiter._meters) == 3
    now_us[0] += 1_000_000
    limiter.forget()
    assert list(limiter._meters) == [("tenant", "tenant_0")], "its generation is under way"
