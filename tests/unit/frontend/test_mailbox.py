"""frontend.triton.mailbox: letters and a stream's own end come together in their order, or the stream fails."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing

import msgspec
import pytest

from frontend.domain.errors import Unavailable
from frontend.domain.generation import GenerationDelta, GenerationRequest, Sampling
from frontend.triton import mailbox as mailboxes
from frontend.triton.mailbox import STREAMS, Mailbox

REQUEST = GenerationRequest(prompt_ids=[1], sampling=Sampling(), stream=True, cache_salt="tests")
Raw = Mapping[str, bytes]


def text(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


def own(said: bytes, num_mailed: int, finish: bytes = b"stop") -> Raw:
    """A response of a stream's own call."""
    return {
        "text_output": text(said),
        "finish_reason": text(finish),
        "num_output_tokens": struct.pack("<I", 1),
        "num_cached_tokens": struct.pack("<I", 0),
        "num_mailed": struct.pack("<I", num_mailed),
    }


def mail(**said: str) -> Raw:
    """A response of the mailbox: what each request gained."""
    letters = [(request_id, 0, [(0, words, 1, None)]) for request_id, words in said.items()]
    return {"mail": text(msgspec.msgpack.encode(letters))}


class Calls:
    """What Triton would answer."""

    def __init__(self) -> None:
        self.mails: asyncio.Queue[Raw | Exception | None] = asyncio.Queue()
        self.later: asyncio.Queue[Raw | Exception | None] = asyncio.Queue()
        """Of a second mailbox."""
        self.opened = 0

    async def infer(self, message: object) -> AsyncGenerator[Raw, None]:
        self.opened += 1
        mails = self.mails if self.opened == 1 else self.later
        while (mail := await mails.get()) is not None:
            if isinstance(mail, Exception):
                raise mail
            yield mail


async def responses(*each: Raw | Exception) -> AsyncGenerator[Raw, None]:
    for response in each:
        if isinstance(response, Exception):
            raise response
        yield response


async def words(mailbox: Mailbox, request_id: str, *each: Raw | Exception) -> str:
    """All that a stream says. `each`: what its own call brings."""
    return await said(mailbox.deltas(request_id, mailboxes.Inbox(REQUEST, name_of(mailbox)), responses(*each)))


async def said(deltas: AsyncGenerator[GenerationDelta, None]) -> str:
    async with aclosing(deltas):
        return "".join([choice.text async for delta in deltas for choice in delta.choices])


def names(mailbox: Mailbox) -> list[str | None]:
    """What each of so many streams is told that one is worth it."""
    with ExitStack() as streams:
        return [streams.enter_context(mailbox.stream()) for _ in range(STREAMS)]


def name_of(mailbox: Mailbox) -> str:
    """That of the one that is open."""
    name = names(mailbox)[-1]
    assert name is not None
    return name


async def opened(calls: Calls) -> Mailbox:
    mailbox = Mailbox(calls.infer)
    assert names(mailbox) == [None] * STREAMS
    calls.mails.put_nowait(mail())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert calls.opened == 1
    *few, last = names(mailbox)
    assert few == [None] * (STREAMS - 1)
    assert last is not None
    return mailbox


async def test_an_end_that_overtook_its_letters_waits_for_them() -> None:
    """Two calls of one connection keep no order between them."""
    calls = Calls()
    mailbox = await opened(calls)
    one = asyncio.create_task(words(mailbox, "one", own(b"c", 2)))
    two = asyncio.create_task(words(mailbox, "two", own(b"C", 1)))
    await asyncio.sleep(0.01)
    for each in (mail(one="a"), mail(two="B", one="b"), mail(nobody="x")):
        calls.mails.put_nowait(each)
    assert (await one, await two) == ("abc", "BC")


async def test_a_stream_whose_letters_are_lost_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not end as if nothing were missing, nor wait for ever."""
    monkeypatch.setattr(mailboxes, "PATIENCE_S", 0.05)
    mailbox = await opened(Calls())
    with pytest.raises(Unavailable, match="lost"):
        await words(mailbox, "one", own(b"c", 1))


async def test_a_mailbox_that_breaks_fails_who_had_mail() -> None:
    """Of the others nothing is lost yet: their own calls go on, or are made anew. And it is not named again."""
    calls = Calls()
    mailbox = await opened(calls)
    never: asyncio.Future[Raw] = asyncio.get_running_loop().create_future()

    async def silent() -> AsyncGenerator[Raw, None]:
        yield await never

    one = mailbox.deltas("one", mailboxes.Inbox(REQUEST, name_of(mailbox)), silent())
    calls.mails.put_nowait(mail(one="a"))
    assert [choice.text for choice in (await anext(one)).choices] == ["a"]

    async def late() -> AsyncGenerator[Raw, None]:
        await asyncio.sleep(0.05)
        yield own(b"all", 0)

    two = asyncio.create_task(said(mailbox.deltas("two", mailboxes.Inbox(REQUEST, name_of(mailbox)), late())))
    await asyncio.sleep(0.01)
    calls.mails.put_nowait(Unavailable("gone"))
    with pytest.raises(Unavailable, match="gone"):
        await anext(one)
    assert await two == "all"
    assert names(mailbox) == [None] * STREAMS


async def test_a_mailbox_that_the_model_closes_fails_nobody() -> None:
    """A stream that named it too late gets all by its own call."""
    calls = Calls()
    mailbox = await opened(calls)
    calls.mails.put_nowait(None)
    assert await words(mailbox, "one", own(b"a", 0, b"None"), own(b"b", 0)) == "ab"
    assert names(mailbox) == [None] * STREAMS


async def test_one_that_brought_many_letters_is_followed_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who named it goes on with it; what becomes of it then is nothing to who names the next."""
    monkeypatch.setattr(mailboxes, "MOST_LETTERS", 2)
    calls = Calls()
    mailbox = await opened(calls)
    first = name_of(mailbox)
    one = asyncio.create_task(words(mailbox, "one", own(b"d", 3)))
    for letter in (mail(one="a"), mail(one="b")):
        calls.mails.put_nowait(letter)
    await asyncio.sleep(0.01)
    assert (calls.opened, name_of(mailbox)) == (2, first), "not open yet"
    calls.later.put_nowait(mail())
    await asyncio.sleep(0.01)
    assert name_of(mailbox) != first
    two = asyncio.create_task(words(mailbox, "two", own(b"B", 1)))
    calls.mails.put_nowait(mail(one="c"))
    calls.mails.put_nowait(Unavailable("gone"))
    assert await one == "abcd"
    await asyncio.sleep(0.01)
    assert calls.opened == 2
    calls.later.put_nowait(mail(two="A"))
    assert await two == "AB"


async def test_the_failure_of_its_own_call_ends_a_stream() -> None:
    mailbox = await opened(Calls())
    with pytest.raises(Unavailable, match="busy"):
        await words(mailbox, "one", Unavailable("busy"))


async def test_few_streams_open_none() -> None:
    calls = Calls()
    mailbox = Mailbox(calls.infer)
    with ExitStack() as streams:
        for _ in range(STREAMS - 1):
            streams.enter_context(mailbox.stream())
        await asyncio.sleep(0.01)
    assert calls.opened == 0
