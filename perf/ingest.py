"""How much of the embedding model's own throughput is left when files are put into a vector store.

In turn, several times: windows sent straight to /v1/embeddings, and a file of as many windows put into a store. Both end with
the same model in Triton; what lies between them is reading, cutting, queueing and SQL.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import httpx
import msgspec

from perf import machine

WINDOW_TOKENS = 200
"""Of a chunk of 800 tokens, a quarter (services/embeddings.py)."""
STEP_TOKENS = 400
"""From chunk to chunk: each token but those of the ends is in two chunks."""
AT_ONCE = 40
"""Windows of one request to /v1/embeddings: four batches of the model."""
IN_FLIGHT = 2
WORDS = (
    "engine",
    "river",
    "morning",
    "lantern",
    "garden",
    "bridge",
    "winter",
    "letter",
    "station",
    "harbour",
    "captain",
)
"""Each is one token."""
FIRST_ID, LAST_ID = 2000, 20000
"""Ids of whole words, in the vocabulary of BERT."""
POLL_S = 0.05


class Round(msgspec.Struct, frozen=True):
    direct_per_s: float
    """Windows a second."""
    ingest_per_s: float

    @property
    def share(self) -> float:
        return self.ingest_per_s / self.direct_per_s


def measure(url: str, key: str, windows: int, rounds: int) -> str:
    """`url`: with its /v1. A table in Markdown."""
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=600) as client:
        direct(client, AT_ONCE)  # warm
        found = [Round(direct(client, windows), ingest(client, windows)) for _ in range(rounds)]
    rows = [
        "| round | /v1/embeddings | into a store | share |",
        "|---|---|---|---|",
        *(f"| {i} | {r.direct_per_s:.1f}/s | {r.ingest_per_s:.1f}/s | {r.share:.2f} |" for i, r in enumerate(found, 1)),
    ]
    middle = [median(r.direct_per_s for r in found), median(r.ingest_per_s for r in found)]
    rows.append(f"| median | {middle[0]:.1f}/s | {middle[1]:.1f}/s | **{median(r.share for r in found):.2f}** |")
    return (
        f"# What ingest costs beside the embedding model\n\n`python -m perf ingest`: {windows} windows of {WINDOW_TOKENS} tokens"
        f" each way, {rounds} rounds; {machine.describe()}.\n\n" + "\n".join(rows) + "\n"
    )


def direct(client: httpx.Client, windows: int) -> float:
    """Windows a second."""
    chance = random.Random(7)  # noqa: S311  # not for secrets
    inputs = [[chance.randint(FIRST_ID, LAST_ID) for _ in range(WINDOW_TOKENS)] for _ in range(windows)]
    parts = [inputs[i : i + AT_ONCE] for i in range(0, windows, AT_ONCE)]

    def send(part: list[list[int]]) -> None:
        body = {"model": "hermes-2-embedder", "input": part, "encoding_format": "base64"}
        client.post("embeddings", json=body).raise_for_status()

    started = time.perf_counter()
    with ThreadPoolExecutor(IN_FLIGHT) as threads:
        list(threads.map(send, parts))
    return windows / (time.perf_counter() - started)


def ingest(client: httpx.Client, windows: int) -> float:
    """The same of a file, from the moment it is put into the store until it is completed."""
    chunks = windows * WINDOW_TOKENS // (2 * STEP_TOKENS)
    text = " ".join(words((chunks + 1) * STEP_TOKENS))
    file = client.post("files", files={"file": ("perf.txt", text)}, data={"purpose": "assistants"}).raise_for_status()
    store = client.post("vector_stores", json={"name": "perf ingest"}).raise_for_status().json()["id"]
    url = f"vector_stores/{store}/files"
    try:
        started = time.perf_counter()
        client.post(url, json={"file_id": file.json()["id"]}).raise_for_status()
        while (status := client.get(f"{url}/{file.json()['id']}").raise_for_status().json()["status"]) == "in_progress":
            time.sleep(POLL_S)
        elapsed_s = time.perf_counter() - started
    finally:
        client.delete(f"vector_stores/{store}").raise_for_status()
        client.delete(f"files/{file.json()['id']}").raise_for_status()
    if status != "completed":
        raise RuntimeError(f"the file has {status}")
    return windows / elapsed_s


def words(count: int) -> Iterator[str]:
    chance = random.Random(7)  # noqa: S311  # not for secrets
    for _ in range(count):
        yield chance.choice(WORDS)
