"""What requests do in SQL, each through the functions that the service itself uses, on a database that is open."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import msgspec

from frontend.api.responses import mapping, schema
from frontend.domain import ids
from frontend.domain.conversations import PageRequest
from frontend.domain.generation import Usage
from frontend.domain.items import InputText, MessageItem, OutputText
from frontend.domain.responses import Response
from frontend.domain.storage import Database
from frontend.runtime import load_profiles
from frontend.services.conversations import ConversationService, NewConversation
from frontend.services.turns import TurnKeeper
from frontend.services.windows import Windows
from frontend.settings import ConversationSettings, Settings
from perf.scale_seed import labels
from perf.turns import TENANT, NoHotState

MOST = 10**7
"""Conversations and items: quotas are counted up to it."""
PAGE = 20
SEEN_ITEMS = 100
"""Of the long conversation, in a prompt."""
AMONG = 100
"""Items in the middle of the long conversation, behind any of which a page begins."""

QUESTION = "Which river runs through the city that we talked of?"
ANSWER = "It is the Seine, which runs for 777 kilometres."
USAGE = Usage(prompt_tokens=60, completion_tokens=32, cached_tokens=40)
ASKED = schema.CreateResponse(model="hermes-2", input=QUESTION)
PARAMETERS = msgspec.json.encode(mapping.parameters(ASKED, trims=True))

Operation = Callable[[], Awaitable[object]]


async def no_preview(*_: Any) -> Any:
    raise NotImplementedError


async def forget(tenant: str, conversation_id: str) -> None: ...


class Seeded(msgspec.Struct, frozen=True):
    """What there is. `many`: in the order of their making."""

    many: Sequence[str]
    short: Sequence[str]
    long: str
    responses: Sequence[str]
    """Some of them."""


class Work:
    def __init__(self, database: Database) -> None:
        settings = ConversationSettings(most_per_tenant=MOST, most_items=MOST)
        profiles = load_profiles(Settings())
        self._database = database
        self._conversations = ConversationService(database, profiles, settings, preview=no_preview, forget=forget)
        self._windows = Windows(database, NoHotState(), self._conversations)
        self._keeper = TurnKeeper(database, NoHotState(), lease_s=15, most_items=MOST)
        self._random = random.Random(0)  # noqa: S311

    async def first_turn(self) -> None:
        """Of an empty database."""
        async with self._database.writing() as uow:
            await uow.keys.ensure_tenant(TENANT, 0)
        conversation = await self._conversations.create(TENANT, NewConversation(metadata=labels(0)))
        await self.turn(conversation.id)

    async def operations(self, seeded: Seeded) -> Mapping[str, Operation]:
        """Each call of one is another conversation, page or response."""
        short, any_of = cycle(seeded.short), self._random.choice
        async with self._database.reading() as uow:
            long = await uow.conversations.get(TENANT, seeded.long)
            middle = await uow.items.between(TENANT, long.id, after=long.head // 2, upto=long.head, most=AMONG)
        items = [stored.item.id for stored in middle]

        def page(after: str | None = None, **metadata: str) -> Awaitable[object]:
            return self._conversations.page(TENANT, PageRequest(limit=PAGE, order="desc", after=after), metadata)

        def items_page(conversation: str, after: str | None = None) -> Awaitable[object]:
            return self._conversations.items(TENANT, conversation, PageRequest(limit=PAGE, order="desc", after=after))

        return {
            "a turn of a short conversation": lambda: self.turn(next(short)),
            "a turn of the long conversation": lambda: self.turn(seeded.long, SEEN_ITEMS),
            "a new conversation": lambda: self._conversations.create(TENANT, NewConversation(metadata={})),
            "conversations, the first page": page,
            "conversations, a page in the middle": lambda: page(any_of(seeded.many)),
            "by metadata that 1 in 10 has": lambda: page(kind=labels(self._random.randrange(10))["kind"]),
            "by metadata that one alone has": lambda: page(ticket=str(self._random.randrange(len(seeded.many)))),
            "items, the first page": lambda: items_page(any_of(seeded.many)),
            "items of the long one, a page in the middle": lambda: items_page(seeded.long, any_of(items)),
            "a response": lambda: self.response(any_of(seeded.responses)),
        }

    async def turn(self, conversation_id: str, seen: int | None = None) -> None:
        """The window is read, the turn begins with its question, and is stored with its answer.

        `seen`: items of the history that the prompt has from now on, as where one is trimmed.
        """
        window = await self._windows.of(TENANT, conversation_id, "conversation")
        conversation = window.conversation
        trim = None if seen is None else msgspec.structs.replace(conversation.trim, upto=conversation.head - seen)
        question = MessageItem(id=ids.new("msg_"), role="user", content=[InputText(QUESTION)])
        answer = MessageItem(id=ids.new("msg_"), role="assistant", content=[OutputText(ANSWER)])
        response = Response(
            id=ids.new("resp_"),
            model="smollm2-135m",
            status="in_progress",
            parameters=PARAMETERS,
            created_at=int(time.time()),
            conversation_id=conversation_id,
        )
        turn = await self._keeper.begin(
            TENANT, response.id, items=[question], window=window, trim=trim, response=response
        )
        ended = msgspec.structs.replace(
            response, status="completed", completed_at=int(time.time()), usage=USAGE, output=[answer]
        )
        await self._keeper.store(turn, [answer], ended)

    async def response(self, response_id: str) -> None:
        """As ResponseService.get has it."""
        async with self._database.reading() as uow:
            await uow.responses.get(TENANT, response_id)
