"""The streams of /v1/responses, byte for byte: each is a golden file, and every event is of OpenAI's specification and of
OpenResponses.

HERMES2_WRITE_GOLDEN=1 writes the files anew; what changed is then in the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from frontend.domain.errors import InvalidRequest, ServiceError, Unavailable
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.compatibility import OF_RESPONSES
from tests.support.responses import FEATURES, RESPONSES, TEXT, Specifications, body, check_stream, events, within

GOLDEN = Path(__file__).parents[1] / "golden"
FAILURES: dict[str, tuple[ServiceError, int, dict[str, Any]]] = {
    "failure": (Unavailable("The engine is not available."), 2, {}),
    "failure-in-the-background": (InvalidRequest("Too much."), 0, {"background": True}),
}


def settled(text: str) -> str:
    """A transcript without what differs from run to run."""
    text = re.sub(r'"(created_at|completed_at)":\d+', r'"\1":0', text)
    return re.sub(r"\b(resp|msg|fc|call|conv)_[0-9a-f]{32}", r"\1_…", text)


def compare(name: str, response: httpx.Response) -> None:
    transcript = settled(f"HTTP {response.status_code}\n\n{response.text}")
    path = GOLDEN / f"responses-{name}.sse"
    if os.environ.get("HERMES2_WRITE_GOLDEN"):
        path.write_text(transcript)
    assert transcript == path.read_text()


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.compat(
    OF_RESPONSES,
    "streams: text, calls, structured output, log probabilities, truncation, in the background",
    says="yes: golden transcripts",
)
async def test_the_stream_is_the_golden_one(name: str, smollm2: Path) -> None:
    """Every byte of it, but for ids and times."""
    says, more = FEATURES[name]
    async with client_for(FakeEngine(says=says), smollm2) as client:
        compare(name, await client.post(RESPONSES, json=await within(client, name, more) | {"stream": True}))


@pytest.mark.parametrize("name", FAILURES)
@pytest.mark.compat(OF_RESPONSES, "streams: a failure is told by `response.failed`", says="yes: golden transcripts")
async def test_a_failing_stream_is_the_golden_one(name: str, smollm2: Path) -> None:
    """It ends with `response.failed`, whose error has a code of OpenAI's."""
    error, after, more = FAILURES[name]
    async with client_for(FakeEngine(error=error, fail_after=after, says=TEXT), smollm2) as client:
        compare(name, await client.post(RESPONSES, json=body(more) | {"stream": True}))


@pytest.mark.parametrize("name", [*FEATURES, *FAILURES])
@pytest.mark.compat(OF_RESPONSES, "every event is of OpenAI's specification, and of OpenResponses")
def test_the_golden_streams_are_of_both_specifications(name: str, specifications: Specifications) -> None:
    """Each event; and they agree with each other."""
    _, transcript = (GOLDEN / f"responses-{name}.sse").read_text().split("\n\n", 1)
    check_stream(events(transcript), specifications)


async def test_before_the_first_token_the_status_is_honest(smollm2: Path) -> None:
    """No stream is begun that could only fail."""
    async with client_for(FakeEngine(error=Unavailable("gone")), smollm2) as client:
        for stream in (True, False):
            assert (await client.post(RESPONSES, json=body({"stream": stream}))).status_code == 503
