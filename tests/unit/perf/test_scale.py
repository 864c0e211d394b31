"""perf/scale: rows that the service would have written, and what is said of what grows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from frontend.db.engines import sqlite_path, sqlite_url
from frontend.domain.conversations import PageRequest
from perf import scale, scale_seed, scale_work
from perf.scale_seed import Seeder, Templates
from perf.scale_work import Work
from perf.turns import TENANT

TINY = scale.Plan(levels=[200, 400], operations=3, long_turns=100)


async def seeder_of(url: str) -> Seeder:
    async with scale.opened(url) as database:
        await Work(database).first_turn()
    return Seeder(await Templates.read(url))


async def test_a_tiny_run_on_each_database(database_url: str) -> None:
    """Every operation does something at every level, and as many statements at the last as at the first."""
    said: list[str] = []
    found = await scale.of_database(TINY, database_url, said.append)
    assert [level.items for level in found] == TINY.levels
    # Two and then two more of 100 items, the long one of 200, three short ones of 10 at each level.
    assert [(level.conversations, level.all_items) for level in found] == [(6, 430), (11, 660)]
    for name, first in found[0].costs.items():
        assert found[1].costs[name].statements == first.statements > 0, name
        assert len(first.wall_ms) == TINY.operations
    text = scale.report(found, TINY, "a database")
    for name in found[0].costs:
        assert sum(line.startswith(f"| {name} |") for line in text.splitlines()) == 2
    assert len(scale.pictures(found)) == 2


async def test_seeded_conversations_are_as_the_service_reads_them(database_url: str) -> None:
    """Their items in order, question and answer in turn, each with its own id inside and outside, and their responses."""
    seeder = await seeder_of(database_url)
    new = await seeder.grow(database_url, 3, 4)
    async with scale.opened(database_url) as database, database.reading() as uow:
        for conversation_id in new:
            conversation = await uow.conversations.get(TENANT, conversation_id)
            stored = await uow.items.behind(TENANT, conversation_id, 0)
            assert conversation.head == conversation.item_count == len(stored) == 8
            assert [each.seq for each in stored] == list(range(1, 9))
            texts = [getattr(each.item, "text", None) for each in stored]
            assert texts == [scale_work.QUESTION, scale_work.ANSWER] * 4
            for question, answer in zip(stored[::2], stored[1::2], strict=True):
                assert question.response_id is not None
                assert question.response_id == answer.response_id
                response = await uow.responses.get(TENANT, question.response_id)
                assert (response.conversation_id, response.status) == (conversation_id, "completed")
                assert response.output == [answer.item]
            page = await uow.items.page(TENANT, conversation_id, PageRequest(limit=3, order="desc"))
            assert [each.seq for each in page.data] == [8, 7, 6]
            assert (await uow.items.get(TENANT, conversation_id, stored[5].item.id)).seq == 6
        found = await uow.conversations.page(
            TENANT, PageRequest(limit=20, order="desc"), scale_seed.labels(1), scale_seed.BEGUN_AT
        )
        assert [each.id for each in found.data] == [new[1]]


async def test_a_turn_goes_on_from_seeded_ones(database_url: str) -> None:
    """Numbers go on, and a trimmed conversation's prompt sees so many items."""
    seeder = await seeder_of(database_url)
    (long,) = await seeder.grow(database_url, 1, 20, 6)
    async with scale.opened(database_url) as database:
        work = Work(database)
        await work.turn(long, 6)
        await work.turn(long, 6)
        async with database.reading() as uow:
            conversation = await uow.conversations.get(TENANT, long)
            seen = await uow.items.behind(TENANT, long, conversation.trim.upto)
    assert (conversation.head, conversation.trim.upto) == (44, 36)
    assert len(seen) == 8
    assert conversation.trim.summary


async def test_seeded_rows_keep_the_schemas_rules(tmp_path: Path) -> None:
    """SQLite was not asked to look at foreign keys while they were put in; it has its journal again afterwards."""
    url = sqlite_url(tmp_path / "seeded.db")
    seeder = await seeder_of(url)
    await seeder.grow(url, 30, 5)
    await seeder.grow(url, 1, 40, 10)
    async with scale.opened(url) as database:
        assert await database.check()
    path = sqlite_path(url)
    assert path is not None
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA foreign_key_check").fetchall() == []
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert file.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert file.execute("SELECT count(*) FROM items").fetchone() == (seeder.items + 2,)


def test_each_level_has_ten_times_as_many() -> None:
    """Up to the most, from 10,000 on."""
    assert scale.levels(10_000_000) == [10_000, 100_000, 1_000_000, 10_000_000]
    assert scale.levels(999_999) == [10_000, 100_000]


@pytest.mark.parametrize(("last_ms", "verdict"), [(1.4, "flat"), (1.6, "not flat")])
def test_the_medians_of_the_last_level_and_the_first_decide(last_ms: float, verdict: str) -> None:
    """One call in three that is slow does not."""
    walls = [[1.0, 1.0, 9.0], [50.0] * 3, [last_ms, last_ms, 90.0]]
    levels = [scale.Level(10, 10, 1, 0, 10**9, {"a turn": scale.Cost(12, wall, [1.0] * 3)}) for wall in walls]
    row = scale.wall_row("a turn", levels)
    assert row[-2:] == [f"{last_ms:.2f}", verdict]
    assert row[1:3] == ["12", "1.00 / 9.00"]
