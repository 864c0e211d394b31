"""Canaries in documents, in questions about them and in what their search finds: in no event of the log and in no metric."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import structlog

from frontend.observability import metrics
from tests.fakes.engine import FakeEngine
from tests.fakes.words import WordsEmbedder
from tests.support.app import client_for

CANARY = "canaryfinch"
TEXT = f"The {CANARY} of Vellin sings at seven in the morning, and sleeps at nine in the evening."


async def put(client: httpx.AsyncClient, name: str, content: bytes) -> dict[str, int]:
    """Into a store that is searched then; its counts when it has been read."""
    form = {"purpose": "assistants"}
    file = (await client.post("/v1/files", data=form, files={"file": (name, content)})).json()["id"]
    made = {"file_ids": [file], "name": CANARY, "metadata": {"of": CANARY}}
    store = (await client.post("/v1/vector_stores", json=made)).json()
    async with asyncio.timeout(30):
        while store["file_counts"]["in_progress"]:
            await asyncio.sleep(0.02)
            store = (await client.get(f"/v1/vector_stores/{store['id']}")).json()
    tool = {"type": "file_search", "vector_store_ids": [store["id"]]}
    asked: dict[str, object] = {"model": "hermes-2", "max_tokens": 4, "tools": [tool]}
    asked["messages"] = [{"role": "user", "content": f"When does the {CANARY} sing?"}]
    assert (await client.post("/v1/chat/completions", json=asked)).is_success
    query = {"query": f"{CANARY} in the morning", "filters": {"type": "eq", "key": CANARY, "value": CANARY}}
    assert (await client.post(f"/v1/vector_stores/{store['id']}/search", json=query)).is_success
    assert (await client.post(f"/v1/vector_stores/{store['id']}/search", json={"query": CANARY, CANARY: 1})).is_error
    counts: dict[str, int] = store["file_counts"]
    return counts


async def test_documents_are_told_to_nobody(smollm2: Path) -> None:
    """One that is read, and one that cannot be: the log names their ids and how it ended, and no word of them."""
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    try:
        async with client_for(FakeEngine(), smollm2, embedder=WordsEmbedder()) as client:
            assert (await put(client, f"{CANARY}.txt", TEXT.encode()))["completed"] == 1
            assert (await put(client, f"{CANARY}.pdf", b"%PDF-1.7\n" + TEXT.encode()))["failed"] == 1
            shown = (await client.get("/metrics")).text
    finally:
        structlog.reset_defaults()
    assert {"request", "ingested"} <= {each["event"] for each in capture.entries}
    assert CANARY not in repr(capture.entries)
    assert CANARY not in shown + metrics.render(across_processes=False)
