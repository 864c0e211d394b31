"""The bodies of /v1/responses are as specified, and OpenAI's SDK, validating, reads them and puts streams together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

from frontend.api.responses import mapping
from frontend.api.responses.events import frames
from frontend.api.responses.mapping import Bodies
from frontend.api.responses.schema import CreateResponse
from frontend.domain.errors import Unavailable
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.responses import Response, ResponseEvent, StatusChanged
from frontend.domain.seal import Seal
from frontend.http.replies import EventStream
from frontend.services.responses.task import Run
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for
from tests.support.compatibility import OF_RESPONSES
from tests.support.responses import (
    FEATURES,
    RESPONSES,
    TEXT,
    Specifications,
    body,
    check_stream,
    events,
    sdk_over,
    within,
)
from tests.support.spec import validator

NOT_THE_SDK_S = ("top_k", "seed", "presence_penalty", "frequency_penalty")


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.compat(OF_RESPONSES, "the SDK's strict validation; `responses.stream(…)` and `get_final_response()`")
async def test_the_strict_sdk_reads_the_same_in_every_way(name: str, smollm2: Path) -> None:
    """As a whole, as a stream, read again, and streamed again from its middle."""
    says, more = FEATURES[name]
    async with client_for(FakeEngine(says=says), smollm2) as client, sdk_over(client) as sdk:
        asked = await within(client, name, more)
        extra = {key: asked.pop(key) for key in NOT_THE_SDK_S if key in asked}
        whole = await sdk.responses.create(**asked, extra_body=extra)
        told = [event async for event in await sdk.responses.create(**asked, extra_body=extra, stream=True)]
        last = told[-1]
        assert last.type in ("response.completed", "response.incomplete")
        read = await sdk.responses.retrieve(last.response.id, include=more.get("include", openai.omit))
        if last.type == "response.completed":
            async with sdk.responses.stream(response_id=read.id, starting_after=4) as stream:
                numbers = [event.sequence_number async for event in stream]
                again = await stream.get_final_response()
            assert numbers == [event.sequence_number for event in told[5:]]
            assert again.output_text == read.output_text
    assert last.response == read
    assert read.status == ("incomplete" if name.startswith("truncat") else "completed")
    if name != "background":
        assert (whole.status, whole.output_text) == (read.status, read.output_text)
        assert [item.type for item in whole.output] == [item.type for item in read.output]


@pytest.mark.compat(OF_RESPONSES, "every body is of OpenAI's specification, and of OpenResponses")
async def test_bodies(smollm2: Path, openai_spec: dict[str, Any], specifications: Specifications) -> None:
    """Responses made, read again, queued and cancelled; input items, counted tokens and compactions."""
    asked = [
        {"role": "user", "content": [{"type": "input_text", "text": "What is the weather?"}]},
        {"role": "assistant", "content": "I shall ask."},
        {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "Rain."}]},
    ]
    hold = asyncio.Event()
    hold.set()
    async with client_for(FakeEngine(says=TEXT, hold=hold), smollm2) as client:
        compacted = (await client.post(f"{RESPONSES}/compact", json=body({}))).json()
        made = (await client.post(RESPONSES, json=body({"input": [*compacted["output"], *asked]}))).json()
        read = (await client.get(f"{RESPONSES}/{made['id']}")).json()
        listed = (await client.get(f"{RESPONSES}/{made['id']}/input_items")).json()
        counted = (await client.post(f"{RESPONSES}/input_tokens", json=body({}))).json()
        hold.clear()
        queued = (await client.post(RESPONSES, json=body({"background": True}))).json()
        cancelled = (await client.post(f"{RESPONSES}/{queued['id']}/cancel")).json()
    assert [each["status"] for each in (made, queued, cancelled)] == ["completed", "queued", "cancelled"]
    for response in (made, queued, cancelled):
        specifications.check(response)
    assert made == read
    validator(openai_spec, "CompactResource").validate(compacted)
    validator(openai_spec, "ResponseItemList").validate(listed)
    validator(openai_spec, "TokenCountsResource").validate(counted)
    kinds = [item["type"] for item in listed["data"]]
    assert kinds == ["function_call_output", "function_call", "message", "message", "compaction"]


@pytest.mark.compat(OF_RESPONSES, "`input_items`, `input_tokens`, `compact`, `cancel`, `delete`")
async def test_the_other_routes_in_the_sdk(smollm2: Path) -> None:
    """input_items pages, input_tokens, compact, delete."""
    async with client_for(FakeEngine(says=TEXT), smollm2) as client, sdk_over(client) as sdk:
        made = await sdk.responses.create(model="hermes-2", input=[{"role": "user", "content": "Where?"}] * 3)
        items = [item async for item in sdk.responses.input_items.list(made.id, limit=2)]
        assert [item.type for item in items] == ["message"] * 3
        assert (await sdk.responses.input_tokens.count(model="hermes-2", input="Where?")).input_tokens > 0
        compacted = await sdk.responses.compact(model="hermes-2", input="Where?")
        assert [item.type for item in compacted.output] == ["compaction"]
        await sdk.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(made.id)


@asynccontextmanager
async def streaming(
    smollm2: Path, events_of: Callable[[Response], AsyncGenerator[ResponseEvent, None]]
) -> AsyncIterator[httpx.AsyncClient]:
    """A server whose every answer is the stream of these events, of a response that runs."""
    seal = Seal(b"key").of("tenant")
    task = mapping.to_task(CreateResponse(model="hermes-2", input="Where?"), None, seal)
    response = Response(
        id="resp_1", model="smollm2-135m", status="in_progress", parameters=task.parameters, created_at=1_700_000_000
    )
    run = Run(response, events_of(response))
    stream = EventStream(frames(run, Bodies(Encoder.from_folder(smollm2), seal)), prime_timeout_s=1, keepalive_s=1)
    transport = httpx.ASGITransport(stream)  # type: ignore[arg-type]  # Litestar's types
    async with httpx.AsyncClient(transport=transport, base_url="http://hermes2") as client:
        yield client


async def cancelled(response: Response) -> AsyncGenerator[ResponseEvent, None]:
    yield StatusChanged(n=0, name="created", response=response)
    yield StatusChanged(n=1, name="cancelled", response=msgspec.structs.replace(response, status="cancelled"))


async def broken(response: Response) -> AsyncGenerator[ResponseEvent, None]:
    yield StatusChanged(n=0, name="created", response=response)
    raise Unavailable("The database is gone.")


async def test_a_stream_that_was_cancelled(smollm2: Path, specifications: Specifications) -> None:
    """It ends with an event that both specifications and the SDK know; its status says what happened."""
    async with streaming(smollm2, cancelled) as client:
        check_stream(events((await client.post(RESPONSES)).text), specifications)
    async with streaming(smollm2, cancelled) as client, sdk_over(client) as sdk:
        told = [event async for event in await sdk.responses.create(**body({}), stream=True)]
    assert told[-1].type == "response.incomplete"
    assert (told[-1].response.status, told[-1].response.incomplete_details) == ("cancelled", None)


async def test_an_error_that_is_not_the_response_s_is_raised(smollm2: Path) -> None:
    """What breaks while somebody follows comes as an error event, for which the SDK raises, and the stream has an end."""
    async with streaming(smollm2, broken) as client:
        assert (await client.post(RESPONSES)).text.endswith("data: [DONE]\n\n")
    async with streaming(smollm2, broken) as client, sdk_over(client) as sdk:
        told = await sdk.responses.create(**body({}), stream=True)
        assert (await anext(told)).type == "response.created"
        with pytest.raises(openai.APIError, match="The database is gone"):
            await anext(told)
