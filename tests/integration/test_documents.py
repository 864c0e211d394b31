"""Files, vector stores and file search over two frontend processes, with the real embedding model, on SQLite and PostgreSQL.

Every request is a connection of its own, so that either process answers it: what one has acknowledged, the other finds.
"""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psutil
import pytest

from tests.support.database import PostgresServer
from tests.support.stack import API_KEY, BIN, Stack

Client = Any
"""openai.OpenAI; its unions of thirty kinds of items say nothing here."""
ANSWER = "The gate opens at seven, says [1]."
FACTS = {
    "gate.txt": "The harbour gate of Vellin opens at seven in the morning and closes at nine in the evening.",
    "cats.md": "# Cats\n\nA cat sleeps for sixteen hours a day. Old cats sleep even longer than that.",
    "prices.csv": "item,price\nlantern,12\nrope,7\n",
}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def documents(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp(f"documents-{request.param}")
    replies = home / "replies.json"
    replies.write_text(json.dumps([{"when": "", "reply": ANSWER}]))
    settings: dict[str, object] = {"ENGINE_SCRIPTED_REPLIES": replies}
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        server.psql("CREATE DATABASE documents")
        settings["SQL_URL"] = server.get_uri("documents")
    with Stack(
        home, WORKERS=2, ENGINE_BACKEND="scripted", ENGINE_SCRIPTED_TOKEN_INTERVAL_MS=5, EMBEDDER_ENABLED="true",
        **settings,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def client(documents: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{documents.url}/v1",
        api_key=API_KEY,
        max_retries=0,
        timeout=60,
        _strict_response_validation=True,
        default_headers={"connection": "close"},
    ) as sdk:
        yield sdk


def filled(client: Client) -> str:
    store = client.vector_stores.create(name="facts")
    files = [(name, io.BytesIO(text.encode())) for name, text in FACTS.items()]
    batch = client.vector_stores.file_batches.upload_and_poll(store.id, files=files)
    assert (batch.status, batch.file_counts.completed, batch.file_counts.failed) == ("completed", 3, 0)
    return str(store.id)


def workers(stack: Stack) -> list[psutil.Process]:
    """The frontend's processes, without the one that starts them."""
    master = next(p for p in stack.family() if "granian" in " ".join(p.cmdline()))
    return [child for child in master.children() if "resource_tracker" not in " ".join(child.cmdline())]


def found(client: Client, store: str, query: str, **more: Any) -> list[str]:
    return [each.filename for each in client.vector_stores.search(store, query=query, **more).data]


def test_written_here_found_there(client: Client) -> None:
    """The moment a file is completed every process finds it; the moment it is removed, none does."""
    store = filled(client)
    for _ in range(8):
        assert found(client, store, "When does the gate open?")[0] == "gate.txt"
        assert found(client, store, "How long do cats sleep?")[0] == "cats.md"
    (cats,) = [
        each.file_id for each in client.vector_stores.search(store, query="cats").data if "cats" in each.filename
    ]
    client.vector_stores.files.delete(cats, vector_store_id=store)
    for _ in range(8):
        assert "cats.md" not in found(client, store, "How long do cats sleep?")
    for _ in range(4):
        note = client.files.create(file=("late.txt", b"The ferry to Oum leaves from pier nine."), purpose="assistants")
        client.vector_stores.files.create_and_poll(note.id, vector_store_id=store, poll_interval_ms=50)
        assert found(client, store, "Where does the ferry leave?")[0] == "late.txt"
        client.files.delete(note.id)
        assert "late.txt" not in found(client, store, "Where does the ferry leave?")
    assert client.vector_stores.retrieve(store).file_counts.total == 2


def test_an_answer_cites_what_it_was_given(client: Client) -> None:
    """Streamed and kept citations are the same, and name the file that the passage is from."""
    store = filled(client)
    tool: Any = {"type": "file_search", "vector_store_ids": [store]}
    stream = client.responses.create(
        model="hermes-2",
        input="When does the harbour gate open?",
        tools=[tool],
        include=["file_search_call.results"],
        stream=True,
    )
    events = list(stream)
    streamed = [event.annotation.to_dict() for event in events if event.type == "response.output_text.annotation.added"]
    final = events[-1].response
    call, message = final.output
    assert call.type == "file_search_call"
    assert call.results[0].filename == "gate.txt"
    (part,) = message.content
    assert part.text == ANSWER
    assert [each.to_dict() for each in part.annotations] == streamed
    assert streamed
    assert {each["filename"] for each in streamed} == {"gate.txt"}
    assert all(0 <= each["index"] <= len(ANSWER) for each in streamed)
    kept = client.responses.retrieve(final.id).output[-1]
    assert kept.to_dict() == message.to_dict()


def test_what_is_not_there_is_not_found(client: Client) -> None:
    """Nothing in the documents is like the question: no passage, no citation."""
    store = filled(client)
    tool: Any = {"type": "file_search", "vector_store_ids": [store]}
    response = client.responses.create(
        model="hermes-2",
        input="Quantum chromodynamics of strange baryons?",
        tools=[tool],
        include=["file_search_call.results"],
    )
    call, message = response.output
    assert call.results == []
    assert message.content[0].annotations == []


def test_another_tenant_has_none_of_it(client: Client, documents: Stack) -> None:
    """Its ids are like unknown ones, in paths and in bodies."""
    store = filled(client)
    made = subprocess.run(
        [BIN / "hermes2", "keys", "create", "--tenant", "stranger"],
        env=documents.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    stranger = {"authorization": f"Bearer {made.stdout.strip()}"}
    tool = {"type": "file_search", "vector_store_ids": [store]}
    unknown = {"type": "file_search", "vector_store_ids": [store[:-1] + ("0" if store[-1] != "0" else "1")]}

    def ask(tools: list[dict[str, Any]]) -> httpx.Response:
        body = {"model": "hermes-2", "input": "gate?", "tools": tools}
        return httpx.post(f"{documents.url}/v1/responses", json=body, headers=stranger)

    ours, nobodys = ask([tool]), ask([unknown])
    assert ours.status_code == nobodys.status_code == 404
    assert ours.text.replace(store, "ID") == nobodys.text.replace(unknown["vector_store_ids"][0], "ID")
    assert (
        httpx.post(
            f"{documents.url}/v1/vector_stores/{store}/search", json={"query": "x"}, headers=stranger
        ).status_code
        == 404
    )


def test_a_dead_process_does_not_keep_a_file(client: Client, documents: Stack) -> None:
    """kill -9 of whoever puts files into a store: what was published stays, the rest is begun anew, and all is there once."""
    store = client.vector_stores.create(name="crash")
    text = "\n".join(f"Number {n}: the lantern of street {n} burns until {n % 12} o'clock." for n in range(400))
    ids = [client.files.create(file=(f"{n}.txt", text.encode()), purpose="assistants").id for n in range(4)]
    batch = client.vector_stores.file_batches.create(store.id, file_ids=ids)
    time.sleep(0.5)
    for process in workers(documents):
        process.kill()
    deadline = time.monotonic() + 90
    counts = None
    while counts is None or counts.in_progress:
        assert time.monotonic() < deadline, counts
        time.sleep(0.3)
        try:
            counts = client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id).file_counts
        except openai.APIConnectionError:
            continue
    assert (counts.completed, counts.failed) == (4, 0)
    content = list(client.vector_stores.files.content(ids[0], vector_store_id=store.id))
    assert content
    assert len(found(client, store.id, "lantern of street 7", max_num_results=50)) > 0
