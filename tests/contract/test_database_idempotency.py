"""Idempotency-Keys on SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio

import msgspec

from frontend.db.database import SqlDatabase
from frontend.domain.idempotency import IdempotencyRecord, StoredReply
from tests.support.records import NOW, idempotency_record

REPLY = StoredReply(status=200, content_type="application/json", body=b"\x78\x01\x00\xff")


async def claim(
    database: SqlDatabase, wanted: IdempotencyRecord, tenant: str = "ours", now: float = NOW
) -> IdempotencyRecord | None:
    async with database.writing() as uow:
        return await uow.idempotency.claim(tenant, wanted, now)


async def test_the_first_claim_of_a_key_wins(database: SqlDatabase) -> None:
    """Others get the record that is there; another tenant's key of the same name is another key."""
    assert await claim(database, idempotency_record()) is None
    assert await claim(database, idempotency_record("process 2", fingerprint=b"other")) == idempotency_record()
    assert await claim(database, idempotency_record("process 2"), tenant="theirs") is None


async def test_of_claims_at_the_same_time_one_wins(database: SqlDatabase) -> None:
    """However many transactions come at once."""
    owners = [f"process {number}" for number in range(12)]
    told = await asyncio.gather(*(claim(database, idempotency_record(owner)) for owner in owners))
    assert told.count(None) == 1
    winner = idempotency_record(owners[told.index(None)])
    assert all(each == winner for each in told if each is not None)


async def test_an_answer_is_what_the_next_one_gets(database: SqlDatabase) -> None:
    """Byte by byte; only the owner can answer, and what is answered is not given up or answered again."""
    await claim(database, idempotency_record())
    async with database.writing() as uow:
        await uow.idempotency.answer("ours", "key-1", "process 2", REPLY)
        await uow.idempotency.answer("theirs", "key-1", "process 1", REPLY)
    assert await claim(database, idempotency_record("process 2")) == idempotency_record()
    async with database.writing() as uow:
        await uow.idempotency.answer("ours", "key-1", "process 1", REPLY)
        await uow.idempotency.answer("ours", "key-1", "process 1", msgspec.structs.replace(REPLY, status=201))
        await uow.idempotency.give_up("ours", "key-1", "process 1")
    assert await claim(database, idempotency_record("process 2")) == idempotency_record(reply=REPLY)


async def test_what_is_given_up_can_be_claimed_again(database: SqlDatabase) -> None:
    """By its owner only."""
    await claim(database, idempotency_record())
    async with database.writing() as uow:
        await uow.idempotency.give_up("ours", "key-1", "process 2")
    assert await claim(database, idempotency_record("process 2")) == idempotency_record()
    async with database.writing() as uow:
        await uow.idempotency.give_up("ours", "key-1", "process 1")
    assert await claim(database, idempotency_record("process 2")) is None


async def test_what_its_process_has_left_is_taken_over_once(database: SqlDatabase) -> None:
    """And its former owner can neither answer nor renew it."""
    await claim(database, idempotency_record())
    taken = idempotency_record("process 2", lease_until=NOW + 50.5, created_at=NOW + 40, expires_at=NOW + 90_000)
    async with database.writing() as uow:
        assert await uow.idempotency.take_over("ours", taken, idempotency_record())
        assert not await uow.idempotency.take_over("ours", idempotency_record("process 3"), idempotency_record())
        await uow.idempotency.answer("ours", "key-1", "process 1", REPLY)
        await uow.idempotency.renew("process 1", [("ours", "key-1")], NOW + 99)
    assert await claim(database, idempotency_record("process 3")) == taken


async def test_leases_are_renewed_together(database: SqlDatabase) -> None:
    """Those of the keys that are named, and of no others."""
    await claim(database, idempotency_record())
    await claim(database, idempotency_record(key="key-2"))
    await claim(database, idempotency_record(key="key-3"))
    async with database.writing() as uow:
        await uow.idempotency.renew("process 1", [("ours", "key-1"), ("ours", "key-3")], NOW + 77.5)
        await uow.idempotency.renew("process 1", [], NOW + 99)
    for key, lease_until in (("key-1", NOW + 77.5), ("key-2", NOW + 15.25), ("key-3", NOW + 77.5)):
        assert await claim(database, idempotency_record("process 2", key=key)) == idempotency_record(
            key=key, lease_until=lease_until
        )


async def test_an_expired_key_begins_anew(database: SqlDatabase) -> None:
    """Its reply is gone, whether it was swept or not."""
    await claim(database, idempotency_record())
    async with database.writing() as uow:
        await uow.idempotency.answer("ours", "key-1", "process 1", REPLY)
    later = idempotency_record("process 2", fingerprint=b"new", created_at=NOW + 86_400, expires_at=NOW + 2 * 86_400)
    assert await claim(database, later, now=NOW + 86_399) == idempotency_record(reply=REPLY)
    assert await claim(database, later, now=NOW + 86_400) is None
    assert await claim(database, idempotency_record("process 3"), now=NOW + 86_401) == later


async def test_expired_keys_are_swept_in_batches(database: SqlDatabase) -> None:
    """And no others are."""
    for number in range(5):
        await claim(database, idempotency_record(key=f"old-{number}", expires_at=NOW + number))
    await claim(database, idempotency_record())
    async with database.writing() as uow:
        assert await uow.idempotency.delete_expired(NOW + 3, 3) == 3
        assert await uow.idempotency.delete_expired(NOW + 3, 3) == 1
        assert await uow.idempotency.delete_expired(NOW + 3, 3) == 0
    assert await claim(database, idempotency_record(key="old-4")) == idempotency_record(key="old-4", expires_at=NOW + 4)
    assert await claim(database, idempotency_record("process 2")) == idempotency_record()
