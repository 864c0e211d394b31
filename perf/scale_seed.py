"""A tenant with as many conversations as wanted, put straight into the tables, as rows that the service would have written.

Each row is a copy of one that the service has written, with ids, numbers and times of its own. Turns of conversations that run
at the same time lie between each other, as they do in tables that have grown.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it publishes no types
import msgspec

from frontend.db.engines import sqlite_path
from frontend.db.labels import digest
from frontend.db.models import ConversationLabelRow, ConversationRow, ItemRow, ResponseRow
from frontend.domain import ids

ITEMS_OF_A_TURN = 2
AT_ONCE = 1000
"""Conversations whose turns lie between each other."""
PUT_TURNS = 50_000
"""That are put in by one call."""
BEGUN_AT = 1_700_000_000
KINDS = 10
SAMPLED = 0.02
"""Of all responses, the share whose ids are remembered."""
CACHE_KIB = 2 * 2**20
"""SQLite's page cache meanwhile: ids are random, and so are the places of indexes that they go to."""
CONVERSATION, RESPONSE, ITEM = ConversationRow.__tablename__, ResponseRow.__tablename__, ItemRow.__tablename__
LABEL = ConversationLabelRow.__tablename__

Put = Callable[[str, Sequence[str], Sequence[tuple[Any, ...]]], Awaitable[None]]
"""Table, columns, rows."""


class Template:
    """A row that the service has written, and what its copies have of their own: that stands in front."""

    def __init__(self, row: Mapping[str, Any], *own: str) -> None:
        kept = {name: value for name, value in row.items() if name not in own and name != "row"}
        self.columns = [*own, *kept]
        self._kept = tuple(kept.values())

    def copy(self, *own: Any) -> tuple[Any, ...]:
        return (*own, *self._kept)


class ItemTemplate(Template):
    def __init__(self, row: Mapping[str, Any]) -> None:
        super().__init__(row, "id", "body", "conversation_id", "response_id", "seq", "created_at")
        self._before, _, self._behind = row["body"].partition(row["id"].encode())

    def item(self, conversation_id: str, response_id: str, seq: int, created_at: int) -> tuple[Any, ...]:
        """All ids are of one length, and the body's bytes around it are the same."""
        new = ids.new("msg_")
        return self.copy(new, self._before + new.encode() + self._behind, conversation_id, response_id, seq, created_at)


class Templates(msgspec.Struct, frozen=True):
    conversation: Template
    label: Template
    response: Template
    question: ItemTemplate
    answer: ItemTemplate

    @classmethod
    async def read(cls, url: str) -> Templates:
        """From a database that has one conversation with one turn."""
        (conversation,), (response,) = await rows_of(url, CONVERSATION), await rows_of(url, RESPONSE)
        label, *_ = await rows_of(url, LABEL)
        question, answer = sorted(await rows_of(url, ITEM), key=lambda row: bool(row["is_output"]))
        return cls(
            Template(
                conversation,
                *("id", "metadata", "created_at", "last_active_at", "head", "item_count", "version"),
                *("trim_upto", "trim_summary", "trim_summarised_upto"),
            ),
            Template(label, "id", "label", "created_at"),
            Template(response, "id", "conversation_id", "created_at", "completed_at"),
            ItemTemplate(question),
            ItemTemplate(answer),
        )


class Seeder:
    def __init__(self, templates: Templates) -> None:
        self.conversations = self.items = 0
        """That were made so far."""
        self.responses: list[str] = []
        """Some of them."""
        self._templates = templates
        self._chance = random.Random(0)  # noqa: S311

    async def grow(self, url: str, conversations: int, turns: int, seen: int | None = None) -> Sequence[str]:
        """So many more, of so many turns each; their ids. Nobody else may have a SQLite open.

        `seen`: the newest items of each that a prompt has, because it was trimmed; None: it was not.
        """
        new = [ids.new("conv_") for _ in range(conversations)]
        async with putting(url) as put:
            for first in range(0, conversations, AT_ONCE):
                await self._block(put, new[first : first + AT_ONCE], turns, seen)
        return new

    async def _block(self, put: Put, some: Sequence[str], turns: int, seen: int | None) -> None:
        items = ITEMS_OF_A_TURN * turns
        trim = (0, None, 0) if seen is None else (items - seen, "They talked about France.", items - seen)
        template, label = self._templates.conversation, self._templates.label
        numbered = list(enumerate(some, self.conversations))
        rows = [
            template.copy(each, metadata(number), BEGUN_AT + number, self._now(), items, items, turns, *trim)
            for number, each in numbered
        ]
        await put(CONVERSATION, template.columns, rows)
        rows = [
            label.copy(each, digest(*entry), BEGUN_AT + number)
            for number, each in numbered
            for entry in labels(number).items()
        ]
        await put(LABEL, label.columns, rows)
        self.conversations += len(some)
        step = max(1, PUT_TURNS // len(some))
        for first in range(0, turns, step):
            await self._turns(put, some, range(first, min(turns, first + step)))

    async def _turns(self, put: Put, some: Sequence[str], turns: range) -> None:
        known, responses, items = self._templates, [], []
        for turn in turns:
            first = ITEMS_OF_A_TURN * turn + 1
            for conversation in some:
                at, response = self._now(), ids.new("resp_")
                responses.append(known.response.copy(response, conversation, at, at))
                items.append(known.question.item(conversation, response, first, at))
                items.append(known.answer.item(conversation, response, first + 1, at))
                self.items += ITEMS_OF_A_TURN
                if self._chance.random() < SAMPLED:
                    self.responses.append(response)
        await put(RESPONSE, known.response.columns, responses)
        await put(ITEM, known.question.columns, items)

    def _now(self) -> int:
        """Time goes on with the items."""
        return BEGUN_AT + self.items // ITEMS_OF_A_TURN


def metadata(number: int) -> str:
    """JSON: one value that many conversations have, and one that is its own."""
    return msgspec.json.encode(labels(number)).decode()


def labels(number: int) -> dict[str, str]:
    return {"kind": str(number % KINDS), "ticket": str(number)}


async def rows_of(url: str, table: str) -> list[dict[str, Any]]:
    """Past all of our own code."""
    query = f"SELECT * FROM {table}"  # noqa: S608  # a name of ours
    if (path := sqlite_path(url)) is not None:
        with closing(sqlite3.connect(path)) as file:
            file.row_factory = sqlite3.Row
            return [dict(row) for row in file.execute(query)]
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


@asynccontextmanager
async def putting(url: str) -> AsyncIterator[Put]:
    """One transaction."""
    path = sqlite_path(url)
    async with putting_sqlite(path) if path is not None else putting_postgres(url) as put:
        yield put


@asynccontextmanager
async def putting_sqlite(path: Path) -> AsyncIterator[Put]:
    """Without a journal: what fails leaves a broken file. Opened by the service, it has its journal again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:

        async def put(table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
            places = ", ".join("?" * len(columns))
            file.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)  # noqa: S608

        for pragma in ("journal_mode = off", "synchronous = off", f"cache_size = -{CACHE_KIB}"):
            file.execute(f"PRAGMA {pragma}")
        file.execute("BEGIN")
        yield put
        file.execute("COMMIT")
    with path.open("rb") as written:
        os.fsync(written.fileno())  # otherwise the first commit that is measured waits for all of it


@asynccontextmanager
async def putting_postgres(url: str) -> AsyncIterator[Put]:
    connection = await asyncpg.connect(url)
    try:

        async def put(table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
            await connection.copy_records_to_table(table, records=rows, columns=columns)

        async with connection.transaction():
            yield put
        await connection.execute(f"ANALYZE {CONVERSATION}, {LABEL}, {RESPONSE}, {ITEM}")  # as its own daemon would
    finally:
        await connection.close()
