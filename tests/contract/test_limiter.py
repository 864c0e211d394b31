"""One contract for every limiter: this process's own buckets, and those in Valkey that all processes share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
import valkey.asyncio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from frontend.domain.errors import RateLimited
from frontend.domain.limits import UNLIMITED, Account, Grant, Limits, Standing
from frontend.domain.ports import Limiter
from frontend.services.limits.local import LocalLimiter
from frontend.valkey.breaker import Breaker
from frontend.valkey.limiter import SOURCE, ValkeyLimiter, open_limiter
from frontend.valkey.pipe import Pipe, open_pipe
from tests.support.valkey import Server

TIMEOUT_S = 2.0
"""For tests of something else."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("v") / "valkey.sock")
    asyncio.run(running.answers())
    yield running
    running.end()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[valkey.asyncio.Valkey]:
    async with valkey.asyncio.Valkey.from_url(server.owner_url) as connected:
        await connected.flushall()
        yield connected


@pytest.fixture
async def pipe(server: Server) -> AsyncIterator[Pipe]:
    async with open_pipe(server.owner_url) as opened:
        yield opened


class Clock:
    """Of both limiters: the process's is injected, and Valkey's functions read theirs from a key."""

    def __init__(self, client: valkey.asyncio.Valkey) -> None:
        self.now_us = 1_790_000_000_000_000
        self._client = client

    async def advance(self, by_us: int) -> None:
        self.now_us += by_us
        await self._client.set("hm2:clock", "{} {}".format(*divmod(self.now_us, 10**6)))


class Timed:
    """A limiter and its clock."""

    def __init__(self, limiter: Limiter, clock: Clock) -> None:
        self.limiter = limiter
        self.clock = clock

    async def passes(self, account: Account, tokens: int = 0, *, lease: bool = False) -> bool:
        try:
            await self.limiter.acquire(account, tokens, lease=lease)
        except RateLimited:
            return False
        return True

    async def refusal(self, account: Account, tokens: int = 0, *, lease: bool = False) -> RateLimited:
        with pytest.raises(RateLimited) as caught:
            await self.limiter.acquire(account, tokens, lease=lease)
        return caught.value


def with_clock(pipe: Pipe) -> ValkeyLimiter:
    source = SOURCE.replace("server.call('TIME')", "{string.match(server.call('GET', 'hm2:clock'), '(%d+) (%d+)')}")
    return ValkeyLimiter(pipe, Breaker(TIMEOUT_S), LocalLimiter(1), source)


@pytest.fixture(params=["local", "valkey"])
async def timed(request: pytest.FixtureRequest, client: valkey.asyncio.Valkey, pipe: Pipe) -> Timed:
    clock = Clock(client)
    await clock.advance(0)
    own = LocalLimiter(1, lambda: clock.now_us)
    return Timed(own if request.param == "local" else with_clock(pipe), clock)


def account(of_tenant: Limits = UNLIMITED, of_key: Limits = UNLIMITED) -> Account:
    return Account(tenant="acme", key_id="key_1", of_tenant=of_tenant, of_key=of_key)


async def test_ten_seconds_can_be_had_at_once(timed: Timed) -> None:
    """Of 60 a minute 10, and then one each second."""
    limited = account(Limits(requests_per_minute=60))
    assert [await timed.passes(limited) for _ in range(12)] == [True] * 10 + [False] * 2
    for _ in range(3):
        await timed.clock.advance(1_000_000)
        assert [await timed.passes(limited) for _ in range(2)] == [True, False]


async def test_any_minute_holds_seven_sixths(timed: Timed) -> None:
    """Under a load of ten times the limit."""
    limited, passed = account(Limits(requests_per_minute=60)), []
    for _ in range(1500):
        await timed.clock.advance(100_000)
        if await timed.passes(limited):
            passed.append(timed.clock.now_us)
    assert max(sum(0 <= each - first < 60_000_000 for each in passed) for first in passed) <= 70
    assert sum(each > timed.clock.now_us - 60_000_000 for each in passed) >= 59


async def test_the_wait_is_honest(timed: Timed) -> None:
    """A microsecond less and it is refused again, of requests and of tokens."""
    for limited, tokens in ((Limits(requests_per_minute=7), 0), (Limits(tokens_per_minute=700), 97)):
        own = account(limited)
        while await timed.passes(own, tokens):
            pass
        wait_s = (await timed.refusal(own, tokens)).retry_after_s
        assert wait_s is not None
        await timed.clock.advance(round(wait_s * 1e6) - 1)
        assert not await timed.passes(own, tokens)
        await timed.clock.advance(1)
        assert await timed.passes(own, tokens)


async def test_a_small_limit_lets_one_through(timed: Timed) -> None:
    """2 a minute: one now, one in thirty seconds."""
    limited = account(Limits(requests_per_minute=2))
    assert await timed.passes(limited)
    assert (await timed.refusal(limited)).retry_after_s == 30.0


async def test_what_is_larger_than_a_burst_waits_until_nothing_is_owed(timed: Timed) -> None:
    """And owes all of it; what is larger than a minute is refused for good."""
    limited = account(Limits(tokens_per_minute=600))
    assert await timed.passes(limited, 1)
    assert (await timed.refusal(limited, 600)).retry_after_s == pytest.approx(0.1)
    await timed.clock.advance(100_000)
    assert await timed.passes(limited, 600)
    assert (await timed.refusal(limited, 1)).retry_after_s == pytest.approx(50.1)
    refusal = await timed.refusal(limited, 601)
    assert refusal.retry_after_s is None
    assert refusal.message == "Request too large for tokens per minute of this tenant: Limit 600, Requested 601."


async def test_a_limit_of_nothing_lets_nothing_through(timed: Timed) -> None:
    """It is how a tenant is stopped."""
    for limits in (Limits(requests_per_minute=0), Limits(tokens_per_minute=0), Limits(concurrency=0)):
        assert (await timed.refusal(account(limits), 1, lease=True)).retry_after_s is None
    assert await timed.passes(account(Limits(tokens_per_minute=0)), 0)


async def test_a_refusal_changes_nothing(timed: Timed) -> None:
    """Neither the tenant's requests, when its key refuses, nor requests, when tokens do, nor leases."""
    limited = account(
        Limits(requests_per_minute=60, tokens_per_minute=6000, concurrency=2), Limits(tokens_per_minute=600)
    )
    before = (await timed.limiter.acquire(limited, 100, lease=True)).standing
    for _ in range(20):
        await timed.refusal(limited, 100, lease=True)
    await timed.clock.advance(10_000_000)
    after = (await timed.limiter.acquire(limited, 100, lease=True)).standing
    assert after == before


async def test_a_refusal_says_which_limit(timed: Timed) -> None:
    """In OpenAI's words, without the names of anybody."""
    limited = account(of_key=Limits(requests_per_minute=1))
    await timed.limiter.acquire(limited, 0, lease=True)
    refusal = await timed.refusal(limited, lease=True)
    assert (refusal.code, refusal.limit, refusal.retry_after_s) == ("rate_limit_exceeded", "requests", 60.0)
    assert refusal.message == (
        "Rate limit reached for requests per minute of this API key: Limit 1, Used 1, Requested 1. Please try again in 60s."
    )
    busy = account(Limits(requests_per_minute=60), Limits(concurrency=2))
    await timed.limiter.acquire(busy, 0, lease=True)
    refusal = await timed.refusal(busy, lease=True)
    assert (refusal.limit, refusal.retry_after_s) == ("concurrency", 1.0)
    assert refusal.message == (
        "Rate limit reached for concurrent generations of this API key: Limit 2, Requested 1. Please try again in 1s."
    )
    assert refusal.standing is not None
    assert refusal.standing.requests is not None


async def test_what_was_not_used_comes_back(timed: Timed) -> None:
    """Once, however often it is settled; the request only if it is asked for."""
    limited = account(Limits(requests_per_minute=60, tokens_per_minute=6000, concurrency=1))
    grant = await timed.limiter.acquire(limited, 1000, lease=True)
    assert remaining(grant) == (9, 0)
    for _ in range(3):
        await timed.limiter.settle(grant, 400)
    grant = await timed.limiter.acquire(limited, 100, lease=True)
    assert remaining(grant) == (8, 500)
    await timed.limiter.settle(grant, 0, refund_request=True)
    grant = await timed.limiter.acquire(limited, 0, lease=True)
    assert remaining(grant) == (8, 600)
    await timed.limiter.settle(grant, 50)
    assert remaining(await timed.limiter.acquire(limited, 0, lease=True)) == (7, 550), "used more than was taken"


async def test_what_time_has_given_back_does_not_come_back_again(timed: Timed) -> None:
    """Large shares, held until they are paid and then given back, would be a burst of any size."""
    limited = account(Limits(tokens_per_minute=6000))
    grants = []
    for _ in range(5):
        grants.append(await timed.limiter.acquire(limited, 1000, lease=True))
        await timed.clock.advance(10_000_000)
    assert await timed.passes(limited, 1000)
    for grant in grants:
        await timed.limiter.settle(grant, 0)
    assert not await timed.passes(limited, 1)


async def test_places_are_free_when_generations_end(timed: Timed) -> None:
    """Of the key and of the tenant; a request without a lease takes none."""
    limited = account(Limits(concurrency=2), Limits(concurrency=1))
    grant = await timed.limiter.acquire(limited, 0, lease=True)
    assert not await timed.passes(limited, lease=True)
    assert await timed.passes(limited)
    other = Account(tenant="acme", key_id="key_2", of_tenant=limited.of_tenant, of_key=UNLIMITED)
    assert [await timed.passes(other, lease=True) for _ in range(2)] == [True, False]
    await timed.limiter.settle(grant, 0)
    assert await timed.passes(limited, lease=True)


async def test_the_standing_is_the_tighter_one(timed: Timed) -> None:
    """Of the key's and the tenant's, for requests and for tokens each."""
    limited = account(
        Limits(requests_per_minute=600, tokens_per_minute=600), Limits(requests_per_minute=60, tokens_per_minute=6000)
    )
    standing = (await timed.limiter.acquire(limited, 50, lease=False)).standing
    assert standing.requests is not None
    assert standing.tokens is not None
    assert (standing.requests.limit, standing.requests.remaining, standing.requests.reset_s) == (60, 9, 1.0)
    assert (standing.tokens.limit, standing.tokens.remaining, standing.tokens.reset_s) == (600, 50, 5.0)


async def test_who_has_no_limits_is_not_counted(timed: Timed) -> None:
    """And has no standing."""
    grant = await timed.limiter.acquire(account(), 10**9, lease=True)
    assert (grant.id, grant.standing) == ("", Standing())
    await timed.limiter.settle(grant, 0)


def remaining(grant: Grant) -> tuple[int, int]:
    requests, tokens = grant.standing.requests, grant.standing.tokens
    assert requests is not None
    assert tokens is not None
    return requests.remaining, tokens.remaining


class TestValkey:
    """What Valkey alone has."""

    @pytest.fixture
    async def limiter(self, server: Server, client: valkey.asyncio.Valkey) -> AsyncIterator[ValkeyLimiter]:
        async with open_limiter(server.url, Breaker(TIMEOUT_S), 4) as opened:
            yield opened

    async def test_a_lease_that_nobody_renews_ends(self, client: valkey.asyncio.Valkey, pipe: Pipe) -> None:
        """After thirty seconds; one that is renewed stays, and one that has ended is not renewed back."""
        clock, limited = Clock(client), account(Limits(concurrency=1))
        await clock.advance(0)
        own = with_clock(pipe)
        process, other = Timed(own, clock), Timed(with_clock(pipe), clock)
        assert await process.passes(limited, lease=True)
        for _ in range(6):
            await clock.advance(10_000_000)
            await with_clock(pipe).renew()  # another process renews its own
            await own.renew()
        assert not await other.passes(limited, lease=True)
        await clock.advance(29_999_999)
        assert not await other.passes(limited, lease=True)
        await clock.advance(1)
        assert await other.passes(limited, lease=True)
        await own.renew()
        assert await client.zcard("hm2:limit:leases:tenant:acme") == 1

    async def test_nothing_stays_for_ever(self, limiter: ValkeyLimiter, client: valkey.asyncio.Valkey) -> None:
        """Every key of a limit ends by itself, later than any window of a conversation does."""
        every = Limits(requests_per_minute=60, tokens_per_minute=60, concurrency=1)
        grant = await limiter.acquire(account(every, every), 5, lease=True)
        assert grant.local is False
        await limiter.renew()
        keys = await client.keys("*")
        assert len(keys) == 4
        assert all(key.startswith(b"hm2:limit:") for key in keys)
        assert all([3600 < await client.ttl(key) <= 7200 for key in keys])

    async def test_a_server_that_was_started_anew_gets_its_functions(
        self, limiter: ValkeyLimiter, client: valkey.asyncio.Valkey
    ) -> None:
        """It knows neither functions nor leases; the next request goes on as if nothing had been."""
        limited = account(Limits(requests_per_minute=60, concurrency=1))
        grant = await limiter.acquire(limited, 0, lease=True)
        await client.flushall()
        await client.function_flush()  # type: ignore[misc]  # typed for both kinds of client
        await limiter.settle(grant, 0, refund_request=True)
        assert remaining_requests(await limiter.acquire(limited, 0, lease=True)) == 9

    async def test_two_versions_live_side_by_side(
        self, limiter: ValkeyLimiter, client: valkey.asyncio.Valkey, pipe: Pipe
    ) -> None:
        """The name of the library holds a hash of its text."""
        other = ValkeyLimiter(pipe, Breaker(TIMEOUT_S), LocalLimiter(1), SOURCE + "-- another")
        limited = account(Limits(requests_per_minute=60))
        assert remaining_requests(await limiter.acquire(limited, 0, lease=False)) == 9
        assert remaining_requests(await other.acquire(limited, 0, lease=False)) == 8
        found = await client.function_list("hm2_limit_*")  # type: ignore[misc]
        assert len(found) >= 2

    async def test_a_clock_that_is_put_back_locks_nobody_out(self, client: valkey.asyncio.Valkey, pipe: Pipe) -> None:
        """What is owed is owed from now on."""
        clock, limited = Clock(client), account(Limits(requests_per_minute=60))
        await clock.advance(0)
        timed = Timed(with_clock(pipe), clock)
        while await timed.passes(limited):
            pass
        await clock.advance(-3_600_000_000)
        assert (await timed.refusal(limited)).retry_after_s == 1.0
        await clock.advance(1_000_000)
        assert await timed.passes(limited)

    async def test_what_cannot_be_read_counts_as_nothing(
        self, limiter: ValkeyLimiter, client: valkey.asyncio.Valkey
    ) -> None:
        """A foreign value stops nobody."""
        await client.set("hm2:limit:owed:tenant:acme", b"what is this")
        assert remaining_requests(await limiter.acquire(account(Limits(requests_per_minute=60)), 0, lease=False)) == 9

    async def test_nobody_without_limits_asks_valkey(
        self, limiter: ValkeyLimiter, client: valkey.asyncio.Valkey
    ) -> None:
        """Such an account costs no round trip."""
        before = (await client.info("stats"))["total_commands_processed"]
        await limiter.settle(await limiter.acquire(account(), 100, lease=True), 50)
        assert (await client.info("stats"))["total_commands_processed"] == before + 1


def remaining_requests(grant: Grant) -> int:
    assert grant.standing.requests is not None
    return grant.standing.requests.remaining


limit = st.none() | st.integers(0, 9) | st.sampled_from([10, 59, 60, 61, 6000, 1_234_567, 50_000_000])
limits = st.builds(
    Limits, requests_per_minute=limit, tokens_per_minute=limit, concurrency=st.none() | st.integers(0, 3)
)
step = st.tuples(
    st.sampled_from(["acquire", "lease", "settle", "refund"]),
    st.integers(0, 30) | st.integers(0, 1_100_000),  # in all less than a lease, which only Valkey ends
    st.integers(0, 12) | st.sampled_from([0, 1000, 100_000, 500_000, 1_234_567, 8_000_000, 50_000_001]),
    st.integers(0, 3),
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(of_tenant=limits, of_keys=st.tuples(limits, limits), steps=st.lists(step, min_size=1, max_size=25))
def test_lua_and_python_decide_alike(
    server: Server, of_tenant: Limits, of_keys: tuple[Limits, Limits], steps: list[tuple[str, int, int, int]]
) -> None:
    """The same requests at the same times: the same grants with the same standing, the same refusals, waits and words."""
    asyncio.run(decide_alike(server, of_tenant, of_keys, steps))


async def decide_alike(
    server: Server, of_tenant: Limits, of_keys: tuple[Limits, Limits], steps: list[tuple[str, int, int, int]]
) -> None:
    async with valkey.asyncio.Valkey.from_url(server.owner_url) as client, open_pipe(server.owner_url) as pipe:
        await client.flushall()
        clock = Clock(client)
        pair: tuple[Limiter, Limiter] = (with_clock(pipe), LocalLimiter(1, lambda: clock.now_us))
        granted: list[tuple[Grant, ...]] = []
        for what, elapsed_us, tokens, which in steps:
            await clock.advance(elapsed_us)
            if what in ("settle", "refund"):
                if granted:
                    for limiter, grant in zip(pair, granted[which % len(granted)], strict=True):
                        await limiter.settle(grant, tokens, refund_request=what == "refund")
                continue
            own = Account(tenant="t", key_id=f"k{which % 2}", of_tenant=of_tenant, of_key=of_keys[which % 2])
            outcomes = [await outcome(limiter, own, tokens, lease=what == "lease") for limiter in pair]
            assert outcomes[0][0] == outcomes[1][0]
            if outcomes[0][1] is not None and outcomes[1][1] is not None:
                granted.append((outcomes[0][1], outcomes[1][1]))


async def outcome(limiter: Limiter, own: Account, tokens: int, *, lease: bool) -> tuple[object, Grant | None]:
    try:
        grant = await limiter.acquire(own, tokens, lease=lease)
    except RateLimited as exc:
        return (exc.message, exc.limit, exc.retry_after_s, exc.standing), None
    return grant.standing, grant
