"""What a conversation remembers: sentences that were said among thousands of turns, and asked for when they are out of sight.

Needs no running service: the service's own code on a real SQLite, the real index, and the embedding model in a process of its
own. Evidence recall: the share of questions for which the sentence with the answer is in what is recalled within the budget.

recency       the newest turns of what is out of sight, as many as the budget holds
dense, BM25   as the service does it, but by vectors alone, by words alone
memory        as the service does it
full context  all of the conversation: everything is there, and it costs what it costs
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import get_args

import msgspec

from deploy.launcher import embedder as launcher_embedder
from deploy.launcher import models
from frontend import settings
from frontend.db.database import open_database
from frontend.db.engines import sqlite_url
from frontend.domain import model_card
from frontend.domain.conversations import Conversation, Trim, Window
from frontend.domain.documents import VectorStore
from frontend.domain.embedding import card as embedding_card
from frontend.domain.embedding.encoder import EmbeddingEncoder
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.items import InputText, Item, MessageItem, OutputText
from frontend.domain.storage import Database
from frontend.services.embeddings import EmbeddingService
from frontend.services.memory import MemoryService
from frontend.services.memory.recall import MOST_HITS, size, told, wanted
from frontend.services.models import ModelService
from frontend.services.search import SearchService
from frontend.services.tokenize import Tokenizer
from perf import machine
from perf.memory_model import Model, embedding_model
from perf.memory_talk import EVERYDAY, REPLIES, Order, Talk, talk
from retrieval.catalog import Catalog
from retrieval.types import Query

TENANT, CONVERSATION = "perf", "conv_perf"
BUDGET_TOKENS = 1024
DEFAULT_TOKENS = settings.RetrievalSettings().memory_tokens
SECONDS_A_TURN = 600
START = 1_767_225_600
WAYS: Mapping[str, tuple[float, float]] = {"dense": (1, 0), "BM25": (0, 1)}
"""Weights of vectors and of words."""


class Row(msgspec.Struct, frozen=True):
    way: str
    recall: float
    tokens: float
    """Of a question, on average."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """In one conversation."""

    order: Order
    rows: Sequence[Row]
    silent: Sequence[float]
    """The share of messages for which nothing is recalled: of questions that nothing in the conversation answers, and of
    everyday messages."""
    turns: int
    units: int
    size_bytes: int
    """Of the index."""
    write_s: float
    recall_ms: float
    """Median."""


class Service(msgspec.Struct, frozen=True):
    database: Database
    search: SearchService
    memory: MemoryService
    tokenizer: Tokenizer
    catalog: Catalog


@asynccontextmanager
async def service(database: Database, model: Model, executor: Executor) -> AsyncIterator[Service]:
    chosen = settings.load()
    folder = models.prepare("smollm2-135m", chosen.home / "models", chosen.engine.environment, print)
    card = model_card.read(folder)
    encoder = Encoder.from_folder(model_card.files_of(folder, card))
    tokenizer = Tokenizer(
        PromptRenderer(encoder, card.chat, card.raw_bos), executor, chosen.limits.tokenize_inline_chars
    )
    vectors = launcher_embedder.folder(chosen)
    assert vectors is not None
    embedding = embedding_card.read(vectors, chosen.embedder.model)
    service_of = ModelService(card, card.context_tokens, embedding)
    vocabulary = EmbeddingEncoder.from_folder(vectors)
    embeddings = EmbeddingService(
        service_of, embedding, vocabulary, model, executor, chosen.limits.tokenize_inline_chars
    )
    catalog = Catalog(2**30)
    search = SearchService(database, embeddings, catalog, executor)
    memory = MemoryService(database, search, embeddings, tokenizer, executor)
    async with memory.running():
        yield Service(database, search, memory, tokenizer, catalog)


async def measure(data: Path, questions: int, others: int, progress: Callable[[str], None]) -> list[Found]:
    """`data`: the folder with XQuAD and Cranfield."""
    chosen = settings.load()
    folder = launcher_embedder.folder(chosen)
    assert folder is not None
    async with embedding_model(folder, chosen.engine.environment) as model:
        return [
            await remembered(talk(data, order, questions, others), order, model, progress) for order in get_args(Order)
        ]


async def remembered(said: Talk, order: Order, model: Model, progress: Callable[[str], None]) -> Found:
    with TemporaryDirectory(dir=Path.cwd()) as where, ThreadPoolExecutor(1) as executor:
        url = sqlite_url(Path(where) / "memory.db")
        async with (
            open_database(url, pool_size=4, timeout_s=30, synchronous="normal") as database,
            service(database, model, executor) as it,
        ):
            progress(f"{order}: {len(said.said)} turns are said")
            window, write_s = await say(it, said)
            progress(f"{order}: in the memory after {write_s:.0f} s")
            trial = Trial(it, window, said)
            rows = await trial.rows()
            return Found(
                order=order,
                rows=rows,
                silent=[await trial.silent(said.unanswered), await trial.silent(EVERYDAY)],
                turns=len(said.said),
                units=(await trial.store()).head,
                size_bytes=it.catalog.size_bytes,
                write_s=write_s,
                recall_ms=median(trial.taken_s) * 1e3,
            )


async def say(it: Service, said: Talk) -> tuple[Window, float]:
    """The conversation with all of it out of sight, and how long it took to remember that."""
    async with it.database.writing() as uow:
        await uow.keys.ensure_tenant(TENANT, START)
        new = Conversation(id=CONVERSATION, metadata={}, created_at=START, last_active_at=START)
        await uow.conversations.add(TENANT, new, 10)
        for number, text in enumerate(said.said):
            now = START + number * SECONDS_A_TURN
            await uow.conversations.append(TENANT, CONVERSATION, turn(number, text), now=now, most=10**9)
    async with it.database.writing() as uow:
        conversation = await uow.conversations.set_trim(TENANT, CONVERSATION, Trim(), Trim(upto=2 * len(said.said)))
    assert conversation is not None
    started = time.perf_counter()
    it.memory.after_turn(TENANT, CONVERSATION)
    await it.memory.idle()
    return Window(conversation=conversation, pinned=[], history=[]), time.perf_counter() - started


def turn(number: int, text: str) -> list[Item]:
    reply = REPLIES[number % len(REPLIES)]
    return [
        MessageItem(id=f"msg_q{number}", role="user", content=[InputText(text)]),
        MessageItem(id=f"msg_a{number}", role="assistant", content=[OutputText(reply)]),
    ]


class Trial:
    def __init__(self, it: Service, window: Window, said: Talk) -> None:
        self._it = it
        self._window = window
        self._said = said
        self.taken_s: list[float] = []
        """By each recall."""

    async def rows(self) -> list[Row]:
        asked = self._said.asked
        recent = await self._recent()
        rows = [await self._row("recency", [recent] * len(asked))]
        for way, weights in WAYS.items():
            rows.append(await self._row(way, [await self._by(each.text, weights) for each in asked]))
        rows.append(await self._row("memory", [await self._recall(each.text) for each in asked]))
        less = [await self._recall(each.text, DEFAULT_TOKENS) for each in asked]
        rows.append(await self._row(f"memory, {DEFAULT_TOKENS} tokens (the default)", less))
        everything = [f"User: {text}\nAssistant: {REPLIES[n % len(REPLIES)]}" for n, text in enumerate(self._said.said)]
        return [*rows, await self._row("full context", ["\n".join(everything)] * len(asked))]

    async def store(self) -> VectorStore:
        async with self._it.database.reading() as uow:
            store = await uow.vector_stores.memory(TENANT, CONVERSATION)
        assert store is not None
        return store

    async def silent(self, messages: Sequence[str]) -> float:
        texts = [await self._recall(text) for text in messages]
        return sum(not text for text in texts) / len(texts)

    async def _row(self, way: str, texts: Sequence[str]) -> Row:
        found = [
            squeezed(asked.sentence) in squeezed(text) for asked, text in zip(self._said.asked, texts, strict=True)
        ]
        tokens = {text: await size(self._it.tokenizer, text) for text in set(texts)}
        return Row(way, sum(found) / len(found), sum(tokens[text] for text in texts) / len(texts))

    async def _recall(self, question: str, budget_tokens: int = BUDGET_TOKENS) -> str:
        given = [MessageItem(id="msg_now", role="user", content=[InputText(question)])]
        started = time.perf_counter()
        texts = await self._it.memory.recall(TENANT, self._window, given, budget_tokens)
        self.taken_s.append(time.perf_counter() - started)
        return "\n".join(texts)

    async def _by(self, question: str, weights: tuple[float, float]) -> str:
        """As MemoryService.recall does it, with other weights."""
        it, store = self._it, await self.store()
        (vector,) = await it.search.query_vectors([question])
        query = Query(text=question, vector=vector, vector_weight=weights[0], text_weight=weights[1])
        order = wanted(await it.search.hits(TENANT, store, query, MOST_HITS, None))
        async with it.database.reading() as uow:
            found = await uow.chunks.read(TENANT, store.id, order)
        return await told(it.tokenizer, order, found, BUDGET_TOKENS) or ""

    async def _recent(self) -> str:
        text = ""
        for number, said in reversed(list(enumerate(self._said.said))):
            longer = f"User: {said}\nAssistant: {REPLIES[number % len(REPLIES)]}\n{text}"
            if await size(self._it.tokenizer, longer) > BUDGET_TOKENS:
                break
            text = longer
        return text


def squeezed(text: str) -> str:
    """Without white space, and without the name before the second half of a sentence that was cut."""
    return "".join(text.replace("\nUser: ", "").split())


def report(found: Sequence[Found], questions: int, others: int) -> str:
    """As Markdown."""
    names = {"scattered": "scattered", "told": "told paragraph by paragraph"}
    recalls = [
        f"| {names[each.order]} | {row.way} | {row.recall:.2f} | {row.tokens:,.0f} |"
        for each in found
        for row in each.rows
    ]
    costs = [f"| {' | '.join([names[each.order], *cost(each)])} |" for each in found]
    lines = [
        "# What a conversation remembers",
        "",
        (
            f"`python -m perf memory --questions {questions} --others {others}`: {questions} sentences that answer questions of"
            f" XQuAD, said by the user among {others} other turns, all out of sight, and asked for with XQuAD's own questions;"
            f" {BUDGET_TOKENS} tokens for what is recalled. all-MiniLM-L6-v2 on one thread, SQLite; {machine.describe()}."
        ),
        "Evidence recall: the share of questions for which the sentence with the answer is in the text.",
        "",
        "| the sentences are | what the prompt has | evidence recall | tokens |",
        "|---|---|---|---|",
        *recalls,
        "",
        (
            "Silent: the share of messages for which nothing is recalled: questions of XQuAD about paragraphs of the same"
            f' articles of which nothing was said, and {len(EVERYDAY)} everyday messages ("Go on."). Recall: the median'
            " of one, embedding of the question included."
        ),
        "",
        "| | silent: unanswered | everyday | turns | units | index | all turns remembered in | recall |",
        "|---|---|---|---|---|---|---|---|",
        *costs,
        "",
    ]
    return "\n".join(lines)


def cost(found: Found) -> list[str]:
    return [
        *(f"{share:.2f}" for share in found.silent),
        str(found.turns),
        str(found.units),
        f"{found.size_bytes / 2**20:.0f} MiB",
        f"{found.write_s:.0f} s",
        f"{found.recall_ms:.0f} ms",
    ]
