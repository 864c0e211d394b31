"""What the gate does on the real service: nobody's prefix is another's, and too much work does not stop the work."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import httpx
import openai
import pytest

from perf import overload, service
from tests.support.stack import API_KEY, BIN, Stack


@pytest.mark.real
def test_a_prefix_that_another_tenant_has_cached_is_not_cached_for_this_one(
    client: openai.OpenAI, stack: Stack
) -> None:
    """Its own is: the second time most of the prompt comes from the cache."""
    made = subprocess.run(
        [BIN / "hermes2", "keys", "create", "--tenant", "neighbour"],
        env=stack.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    other = client.with_options(api_key=made.stdout.strip())
    secret = f"The code of {time.time()} is " + "never said aloud, " * 60

    def cached(sdk: openai.OpenAI) -> int:
        completion = sdk.chat.completions.create(
            model="hermes-2", messages=[{"role": "user", "content": secret}], max_tokens=1
        )
        assert completion.usage
        assert completion.usage.prompt_tokens_details
        return completion.usage.prompt_tokens_details.cached_tokens or 0

    assert cached(client) < 64  # the profile's own words at most
    assert cached(client) > 200
    assert cached(other) < 64
    assert cached(other) > 200


async def test_four_times_too_much(tmp_path: Path) -> None:
    """The short form of `python -m perf overload`, with the scripted engine: as many tokens as before, and quick refusals.

    Three rounds of both in turn, as the machine has other work beside them; what a quiet one does is in the report.
    """
    plan = overload.Plan(slots=16, max_waiting=None, seconds=2.5, warm_s=1)
    with Stack(tmp_path, ENGINE_BACKEND="scripted", ENGINE_MAX_NUM_SEQS=16) as stack:
        running = service.Service(stack.url, stack.environment, stack.process.pid, API_KEY)
        phases = [
            await overload.run(running, plan, loud=(API_KEY, clients))
            for _ in range(3)
            for clients in (plan.clients, 4 * plan.clients)
        ]
        async with httpx.AsyncClient(base_url=stack.url, headers={"authorization": f"Bearer {API_KEY}"}) as http:
            text = (await http.get("/metrics")).text
    once, four = overload.Phase(*phases[::2]), overload.Phase(*phases[1::2])
    assert (once.refused, once.failed, four.failed) == (0, 0, 0)
    assert four.refused > 0
    assert four.of(once.tokens_per_s) > 0.8
    assert four.refusal_s(0.99) < 0.25
    assert "hermes2_admission_waiting 0.0" in text
    assert "hermes2_admission_slots_taken 0.0" in text
