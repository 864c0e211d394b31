"""What a client sees of its limits: headers on every reply, and refusals that SDKs understand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import openai
import pytest

from frontend.domain.limits import Allowance, Standing
from frontend.http.limit_headers import duration, headers
from frontend.services.limits.local import LocalLimiter
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.stack import API_KEY

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
CHAT = {"model": "hermes-2", "messages": MESSAGES, "max_tokens": 4}


@asynccontextmanager
async def limited(model: Path, folder: Path, **limits: int) -> AsyncIterator[httpx.AsyncClient]:
    """The frontend, where each tenant has these limits."""
    path = folder / "plans.toml"
    path.write_text("[plans.default.tenant]\n" + "\n".join(f"{name} = {value}" for name, value in limits.items()))
    engine = FakeEngine(says=["Paris", "."])
    async with client_for(engine, model, limiter=LocalLimiter(1), LIMITS_PLANS=str(path)) as client:
        yield client


def sdk(client: httpx.AsyncClient, max_retries: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        api_key=API_KEY,
        base_url="http://hermes2/v1",
        http_client=client,  # type: ignore[arg-type]  # the SDK takes httpx as well as its successor
        max_retries=max_retries,
    )


async def test_every_reply_says_what_is_left(smollm2: Path, tmp_path: Path) -> None:
    """Generations and others; tokens as they were charged, for the most that the answer could be."""
    async with limited(smollm2, tmp_path, requests_per_minute=60, tokens_per_minute=60_000) as client:
        listed = await client.get("/v1/models")
        chat = await client.post("/v1/chat/completions", json=CHAT)
    assert listed.headers["x-ratelimit-limit-requests"] == "60"
    assert listed.headers["x-ratelimit-remaining-requests"] == "9"
    assert listed.headers["x-ratelimit-reset-requests"] == "1s"
    assert listed.headers["x-ratelimit-remaining-tokens"] == "10000"
    assert listed.headers["x-ratelimit-reset-tokens"] == "0s"
    most = chat.json()["usage"]["prompt_tokens"] + 4
    assert chat.headers["x-ratelimit-remaining-requests"] == "8"
    assert int(chat.headers["x-ratelimit-remaining-tokens"]) == 10_000 - most
    assert chat.headers["x-ratelimit-limit-tokens"] == "60000"


async def test_a_refusal_is_a_429_that_says_when(smollm2: Path, tmp_path: Path) -> None:
    """The envelope of all errors, both kinds of Retry-After, and what is left: nothing."""
    async with limited(smollm2, tmp_path, requests_per_minute=2) as client:
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
        for refused in (await client.post("/v1/chat/completions", json=CHAT), await client.get("/v1/models")):
            assert refused.status_code == 429
            error = refused.json()["error"]
            assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)
            assert error["message"].startswith(
                "Rate limit reached for requests per minute of this tenant: Limit 2, Used 1, Requested 1. Please try again in 29."
            )
            assert refused.headers["retry-after"] == "30"
            assert 29_000 < int(refused.headers["retry-after-ms"]) <= 30_000
            assert refused.headers["x-ratelimit-remaining-requests"] == "0"
            assert "x-ratelimit-limit-tokens" not in refused.headers


async def test_too_large_for_ever_is_not_tried_again(smollm2: Path, tmp_path: Path) -> None:
    """No Retry-After, and the SDKs are told not to."""
    async with limited(smollm2, tmp_path, tokens_per_minute=20) as client:
        refused = await client.post("/v1/chat/completions", json=CHAT)
        assert refused.status_code == 429
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        asked: list[httpx.Request] = []

        async def count(request: httpx.Request) -> None:
            asked.append(request)

        client.event_hooks = {"request": [count]}
        with pytest.raises(openai.RateLimitError, match="Request too large for tokens per minute"):
            await sdk(client, 2).chat.completions.create(model="hermes-2", messages=MESSAGES, max_tokens=4)  # type: ignore[arg-type]
        assert len(asked) == 1


async def test_the_sdk_waits_and_succeeds(smollm2: Path, tmp_path: Path) -> None:
    """By itself, exactly as long as it is told; without retries it raises RateLimitError."""
    async with limited(smollm2, tmp_path, requests_per_minute=120) as client:
        impatient, patient = sdk(client, 0), sdk(client, 2)
        while int((await client.get("/v1/models")).headers["x-ratelimit-remaining-requests"]):
            pass
        with pytest.raises(openai.RateLimitError) as caught:
            await impatient.models.list()
        assert caught.value.code == "rate_limit_exceeded"
        for _ in range(2):
            await patient.models.list()


async def test_unused_tokens_come_back_when_the_answer_has_ended(smollm2: Path, tmp_path: Path) -> None:
    """A thousand were asked for, two came."""
    async with limited(smollm2, tmp_path, tokens_per_minute=9000, concurrency=1) as client:
        for _ in range(3):
            reply = await client.post("/v1/chat/completions", json=CHAT | {"max_tokens": 1000})
            assert reply.status_code == 200, reply.text


def test_nothing_is_said_of_what_has_no_limit() -> None:
    """No headers of tokens for who may have any number of them."""
    found = headers(Standing(requests=Allowance(60, 9, 0.35)))
    assert found == [
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"9"),
        (b"x-ratelimit-reset-requests", b"350ms"),
    ]
    assert headers(Standing()) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.000001, "1ms"),
        (0.35, "350ms"),
        (0.9995, "1s"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (60.25, "1m0.25s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (3725.5, "1h2m5.5s"),
    ],
)
def test_a_reset_is_written_as_openai_does(seconds: float, text: str) -> None:
    """To the millisecond, rounded up."""
    assert duration(seconds) == text
