"""What lasts: responses, conversations and sessions over two frontend processes, on SQLite and on PostgreSQL.

Every request is a connection of its own, so that either process answers it: what one has acknowledged, the other knows.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import openai
import pytest

from tests.support.app import HEADERS
from tests.support.database import PostgresServer
from tests.support.stack import API_KEY, BIN, Stack

FRESH = httpx.Limits(max_keepalive_connections=0)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def lasting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings: dict[str, object] = {}
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        server.psql("CREATE DATABASE lasting")
        settings["SQL_URL"] = server.get_uri("lasting")
    home = tmp_path_factory.mktemp(request.param)
    with Stack(
        home, WORKERS=2, ENGINE_BACKEND="scripted", ENGINE_SCRIPTED_TOKEN_INTERVAL_MS=10, ENGINE_MAX_MODEL_LEN=2048,
        **settings,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def client(lasting: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{lasting.url}/v1",
        api_key=API_KEY,
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
        default_headers={"connection": "close"},
    ) as sdk:
        yield sdk


def ask(client: openai.OpenAI, text: str, **more: Any) -> Any:
    return client.responses.create(model="hermes-2", input=text, **{"max_output_tokens": 16} | more)


def settled(client: openai.OpenAI, response_id: str) -> Any:
    """The response, when it has ended."""
    deadline = time.monotonic() + 30
    while (response := client.responses.retrieve(response_id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return response


def texts(client: openai.OpenAI, conversation: str) -> list[tuple[str, str]]:
    items = client.conversations.items.list(conversation, order="asc", limit=100)
    return [(item.role, item.content[0].text) for item in items if item.type == "message"]  # type: ignore[union-attr]


def test_readable_the_moment_it_is_completed(client: openai.OpenAI) -> None:
    """From any process, 20 times: `response.completed` was sent, so it is there."""
    for i in range(20):
        stream = ask(client, f"number {i}", stream=True)
        (final,) = [event.response for event in stream if event.type == "response.incomplete"]
        assert client.responses.retrieve(final.id).output_text == final.output_text


def test_a_chain_knows_its_beginning(client: openai.OpenAI) -> None:
    """Each link stores what is new and sends all: 5 turns, whoever answers them."""
    previous, sizes = None, []
    for i in range(5):
        response = ask(client, f"number {i}", previous_response_id=previous)
        previous = response.id
        sizes.append(response.usage.input_tokens)
        assert len(list(client.responses.input_items.list(response.id))) == 1
    growth = [later - earlier for earlier, later in pairwise(sizes)]
    assert len(set(growth)) == 1
    assert growth[0] > 16


def test_a_conversation_is_one_for_all_processes(client: openai.OpenAI) -> None:
    """Turns follow each other in the order of their sequence, each with its answer."""
    conversation = client.conversations.create(metadata={"topic": "order"})
    for i in range(6):
        ask(client, f"number {i}", conversation=conversation.id)
    said = texts(client, conversation.id)
    assert [text for role, text in said if role == "user"] == [f"number {i}" for i in range(6)]
    assert [role for role, _ in said] == ["user", "assistant"] * 6


def test_two_writers_at_the_same_instant(client: openai.OpenAI) -> None:
    """One runs, the other gets a 400 that says try again; the SDK's own retry then succeeds."""
    conversation = client.conversations.create()

    def turn(sdk: openai.OpenAI, text: str) -> Any:
        try:
            return ask(sdk, text, conversation=conversation.id, max_output_tokens=30)
        except openai.BadRequestError as exc:
            return exc

    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(lambda text: turn(client, text), ["one", "two"]))
    refused = [each for each in outcomes if isinstance(each, openai.BadRequestError)]
    assert len(refused) == 1
    assert (refused[0].code, refused[0].param) == ("conversation_locked", "conversation")
    assert refused[0].response.headers["x-should-retry"] == "true"
    assert 0 < int(refused[0].response.headers["retry-after-ms"]) <= 1000

    patient = client.with_options(max_retries=4)
    with ThreadPoolExecutor(2) as threads:
        outcomes = list(threads.map(lambda text: turn(patient, text), ["three", "four"]))
    assert [each.status for each in outcomes] == ["incomplete"] * 2
    said = texts(client, conversation.id)
    assert [role for role, _ in said] == ["user", "assistant"] * 3


def test_in_the_background_and_resumed_from_every_number(client: openai.OpenAI, lasting: Stack) -> None:
    """Created, followed from the beginning by a second client while it runs, and from every number when it has ended:
    the same events each time, in order, without a gap."""
    with ask(client, "count", stream=True, background=True, max_output_tokens=20) as stream:
        whole = [event.model_dump() for event in stream]
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert [event["type"] for event in whole[:3]] == ["response.created", "response.queued", "response.in_progress"]
    response_id = whole[0]["response"]["id"]
    for number in range(-1, len(whole)):
        with client.responses.retrieve(response_id, stream=True, **starting(number)) as again:
            resumed = [event.model_dump() for event in again]
        assert resumed == whole[number + 1 :]


def starting(number: int) -> dict[str, Any]:
    return {} if number < 0 else {"starting_after": number}


def test_followed_from_another_process_while_it_runs(client: openai.OpenAI) -> None:
    """8 followers, some of them in the other process: all see all of it."""
    response = ask(client, "count", background=True, max_output_tokens=100)
    assert response.status == "queued"

    def follow(_: int) -> list[str]:
        with client.responses.retrieve(response.id, stream=True) as stream:
            return [event.type for event in stream]

    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(follow, range(8)))
    assert all(each == seen[0] for each in seen)
    assert seen[0][-1] == "response.incomplete"
    assert seen[0].count("response.output_text.delta") > 1


def test_cancelled_from_any_process(client: openai.OpenAI, lasting: Stack) -> None:
    """It says so at once, and the engine stops within a second."""
    for _ in range(4):
        response = ask(client, "count", background=True, max_output_tokens=1500)
        time.sleep(0.1)
        assert client.responses.cancel(response.id).status == "cancelled"
        assert client.responses.retrieve(response.id).status == "cancelled"
        assert client.responses.cancel(response.id).status == "cancelled"
    deadline = time.monotonic() + 1.5
    while engine_requests(lasting):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = ask(client, "short", background=True)
    settled(client, done.id)
    with pytest.raises(openai.BadRequestError, match="ended"):
        client.responses.cancel(done.id)


def engine_requests(stack: Stack) -> int:
    metrics = httpx.get(f"{stack.url}/metrics", headers=HEADERS).text
    (line,) = [line for line in metrics.splitlines() if line.startswith("hermes2_engine_requests ")]
    return int(float(line.split()[1]))


def test_who_leaves_leaves_an_incomplete_turn(client: openai.OpenAI) -> None:
    """What was generated until then is kept, and the conversation goes on."""
    conversation = client.conversations.create()
    with ask(client, "count", conversation=conversation.id, stream=True, max_output_tokens=1500) as stream:
        response_id = next(iter(stream)).response.id
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    response = settled(client, response_id)
    assert response.status == "incomplete"
    assert response.output_text
    assert [role for role, _ in texts(client, conversation.id)] == ["user", "assistant"]
    assert ask(client, "and now?", conversation=conversation.id).status == "incomplete"


def test_after_a_restart_of_everything(client: openai.OpenAI, lasting: Stack) -> None:
    """The third turn knows the first: it is part of the next prompt, and of what the model was given."""
    session = httpx.post(f"{lasting.url}/v1/sessions", headers=HEADERS, json={}).json()
    conversation = session["conversation"]["id"]
    first = ask(client, "My name is Ada Lovelace.", conversation=conversation)
    ask(client, "And yours?", conversation=conversation)
    lasting.stop()
    lasting.start()
    shown = httpx.get(f"{lasting.url}/v1/conversations/{conversation}/context", headers=HEADERS).json()
    assert "Ada Lovelace" in str(shown["parts"])
    third = ask(client, "What is my name?", extra_headers={"X-Session-ID": session["id"]})
    assert third.usage.input_tokens > first.usage.input_tokens + 2 * 16
    assert [role for role, _ in texts(client, conversation)] == ["user", "assistant"] * 3


def test_a_deleted_conversation_is_gone(client: openai.OpenAI, lasting: Stack) -> None:
    """With its responses, from every process."""
    conversation = client.conversations.create()
    response = ask(client, "forget this", conversation=conversation.id)
    client.conversations.delete(conversation.id)
    for _ in range(4):
        with pytest.raises(openai.NotFoundError):
            client.conversations.retrieve(conversation.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(response.id)


def test_another_tenant_sees_nothing(client: openai.OpenAI, lasting: Stack) -> None:
    """Its key was made while the service runs, and works at once; what is not its own does not exist, in the same words."""
    made = subprocess.run(
        [BIN / "hermes2", "keys", "create", "--tenant", "other"],
        env=lasting.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    other = client.with_options(api_key=made.stdout.strip())
    conversation = client.conversations.create()
    response = ask(client, "a secret", conversation=conversation.id)
    session = httpx.post(f"{lasting.url}/v1/sessions", headers=HEADERS, json={"conversation": conversation.id}).json()
    attempts: list[Callable[[], object]] = [
        lambda: other.conversations.retrieve(conversation.id),
        lambda: other.responses.retrieve(response.id),
        lambda: other.responses.delete(response.id),
        lambda: ask(other, "and?", conversation=conversation.id),
        lambda: ask(other, "and?", extra_headers={"X-Session-ID": session["id"]}),
    ]
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError):
            attempt()
    with pytest.raises(openai.BadRequestError, match="not found"):
        ask(other, "and?", previous_response_id=response.id)
    theirs = httpx.get(f"{lasting.url}/v1/conversations", headers={"authorization": f"Bearer {other.api_key}"})
    assert theirs.json()["data"] == []
    assert client.responses.retrieve(response.id).id == response.id
