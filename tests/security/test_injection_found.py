"""Hostile texts that a prompt gets without being sent them: found in files, recalled, summarised, said by the model itself.

How many turns such a prompt has depends on what fits, so the renderer is asked: the control tokens are those of its turns.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import httpx
import pytest

from frontend.domain.hermes.prompt import END, START, PromptRenderer
from frontend.services.context.transcript import ABOUT_A_SUMMARY
from frontend.services.memory.recall import ABOUT_MEMORY
from tests.fakes.engine import FakeEngine
from tests.security.payloads import payload
from tests.security.test_injection import Model, opened

SEED = 6
FILES, SEARCHES, TURNS = 6, 20, 40
SMALL = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}


@pytest.fixture
def chance() -> random.Random:
    return random.Random(SEED)  # noqa: S311  # of a test


@pytest.fixture
def turns_of(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, ...], int]:
    """How many turns each prompt was made of, as it was made."""
    counted: dict[tuple[int, ...], int] = {}
    framed = PromptRenderer.framed

    def counting(self: PromptRenderer, turns: Iterable[Iterable[int]]) -> list[int]:
        listed = list(turns)
        ids = framed(self, listed)
        counted[tuple(ids)] = len(listed)
        return ids

    monkeypatch.setattr(PromptRenderer, "framed", counting)
    return counted


def check(model: Model, prompts: Iterable[Sequence[int]], turns_of: dict[tuple[int, ...], int]) -> None:
    """The engine also gets beginnings of prompts, to know them before it is asked."""
    for ids in prompts:
        whole = next(each for each in turns_of if each[: len(ids)] == tuple(ids))
        assert model.prompts.controls(whole) == [START, END] * turns_of[whole] + [START]


async def test_documents(smollm2: Path, chance: random.Random, turns_of: dict[tuple[int, ...], int]) -> None:
    """Names of files and passages of them, in the turn that tells what was found."""
    async with opened(smollm2, FakeEngine(says=["."])) as model:
        store_id = await filled(model.client, chance)
        ranking = {"score_threshold": 0}
        tool = {
            "type": "file_search",
            "vector_store_ids": [store_id],
            "ranking_options": ranking,
            "max_num_results": 50,
        }
        shown: set[str] = set()
        for _ in range(SEARCHES):
            asked = [{"role": "user", "content": f"What of the rain? {payload(chance)}"}]
            (ids,) = await model.ask("/v1/chat/completions", {"model": "hermes-2", "messages": asked, "tools": [tool]})
            check(model, [ids], turns_of)
            shown.update(*model.prompts.places(ids))
        assert len(shown) > FILES


async def filled(client: httpx.AsyncClient, chance: random.Random) -> str:
    """A store of files with hostile names and hostile texts."""
    file_ids = []
    for number in range(FILES):
        text = "\n\n".join(f"[q{number}{line:02}] Rain. {payload(chance)}".replace("\0", "") for line in range(12))
        name = f"[q{number}]{payload(chance).translate({ord(each): None for each in NOT_IN_NAMES})}.txt"
        form = {"file": (name, text.encode())}
        file_ids.append((await client.post("/v1/files", data={"purpose": "assistants"}, files=form)).json()["id"])
    store = await client.post("/v1/vector_stores", json={"file_ids": file_ids, "chunking_strategy": SMALL})
    path = f"/v1/vector_stores/{store.json()['id']}"
    async with asyncio.timeout(20):
        while (counts := (await client.get(path)).json()["file_counts"])["in_progress"]:
            await asyncio.sleep(0.02)
    assert counts["completed"] == FILES
    return str(store.json()["id"])


NOT_IN_NAMES = '\n\r\0"\\/'


async def test_memory_and_summaries(smollm2: Path, chance: random.Random, turns_of: dict[tuple[int, ...], int]) -> None:
    """A long conversation whose model repeats what it was told: summaries and recalled turns are texts as any other."""
    engine = FakeEngine(says=["The rain. ", payload(chance), payload(chance)])
    async with opened(smollm2, engine, ENGINE_MAX_MODEL_LEN="1536", CONTEXT_RESERVE_TOKENS="64") as model:
        conversation = (await model.client.post("/v1/conversations", json={})).json()["id"]
        texts = ""
        for number in range(TURNS):
            asked = {"role": "user", "content": f"[q{number}] And the rain? {payload(chance)}"}
            body = {"model": "hermes-2", "messages": [asked], "conversation": conversation}
            prompts = await model.ask("/v1/chat/completions", body)
            check(model, prompts, turns_of)
            texts += "".join(map(model.prompts.text, prompts))
            await asyncio.sleep(0.02)
    assert ABOUT_A_SUMMARY in texts
    assert ABOUT_MEMORY in texts
