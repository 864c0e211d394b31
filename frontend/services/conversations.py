"""Conversations that are kept: their making, finding, changing, showing, and their end. Turns are not taken here.

What a tenant does not have, what another has, and what has expired are the same to it: they do not exist. A quota that is
used up is the request's fault (400), not a matter of waiting (OpenAI's 429, which SDKs try again): it lasts until the
tenant deletes something.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import msgspec
from msgspec import UNSET, UnsetType

from frontend.domain import ids
from frontend.domain.context import Context
from frontend.domain.conversations import ContextSettings, Conversation, ExpiresAfter, Page, PageRequest
from frontend.domain.errors import NotFound
from frontend.domain.items import FunctionCallItem, InputText, Item, ItemReference, MessageItem, StoredItem
from frontend.domain.principal import Principal
from frontend.domain.profiles import Profiles
from frontend.domain.responses import Degraded
from frontend.domain.storage import Database, Turn, UnitOfWork
from frontend.services.added_items import chars_of, no_call, plausible, resolved, unanswerable
from frontend.services.memory.removal import drop_if_in_memory
from frontend.services.process import this_process
from frontend.services.resource_ids import could_be
from frontend.settings import ConversationSettings

PAGE = 100
"""Items that are read at a time where all of a conversation are gone through."""
EXPORT_PAGE = 50


class NewConversation(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Mapping[str, str]
    items: Sequence[Item | ItemReference] = ()
    expires_after: ExpiresAfter | None = None
    context: ContextSettings = ContextSettings()
    profile: str | None = None


class ConversationChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is unset stays as it is."""

    metadata: Mapping[str, str] | UnsetType = UNSET
    expires_after: ExpiresAfter | UnsetType | None = UNSET
    context: Mapping[str, bool | int | Sequence[str] | None] = {}
    """Values of ContextSettings by their names."""
    profile: str | UnsetType | None = UNSET


class Export(msgspec.Struct, frozen=True):
    conversation: Conversation
    pages: AsyncGenerator[Sequence[StoredItem], None]
    """All items that the conversation had when this was made, oldest first. Each page is a unit of work of its own: the
    client may be slow. Raises NotFound if the conversation is deleted meanwhile, InvalidRequest if the last item of a page
    is."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    conversation: Conversation
    window_tokens: int
    """Prompt and answer together."""
    context: Context
    """The prompt of a turn that would begin now."""
    degraded: Sequence[Degraded] = ()
    """What the prompt lacks, though the conversation has it."""


Previewer = Callable[[str, Conversation, Sequence[Item], str | None], Awaitable[Preview]]
"""Of a tenant's conversation, the input of its next turn and the key's profile; changes nothing."""
Forget = Callable[[str, str], Awaitable[None]]
"""Takes a tenant's conversation out of every cache, if it can; does not raise."""
CheckLength = Callable[[int, str], None]
"""Raises ContextLengthExceeded for so many characters of a parameter if no prompt could hold them."""
Remember = Callable[[str, str], None]
"""Brings the memory of a tenant's conversation up to date, in the background."""


class ConversationService:
    def __init__(
        self,
        database: Database,
        profiles: Profiles,
        settings: ConversationSettings,
        *,
        preview: Previewer,
        forget: Forget,
        remember: Remember = lambda tenant, conversation_id: None,
        check_length: CheckLength = lambda chars, param: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._profiles = profiles
        self._settings = settings
        self._preview = preview
        self._forget = forget
        self._remember = remember
        self._check_length = check_length
        self._clock = clock
        self._owner = this_process()

    async def create(self, tenant: str, new: NewConversation) -> Conversation:
        """Raises InvalidRequest, NotFound (an item that is referred to), QuotaExceeded."""
        async with self._database.writing() as uow:
            return await self.add(uow, tenant, new)

    async def add(self, uow: UnitOfWork, tenant: str, new: NewConversation) -> Conversation:
        """The same, as a part of `uow`."""
        if new.profile is not None:
            self._profiles.get(new.profile)
        await check_stores(uow, tenant, new.context.vector_store_ids)
        items = await resolved(uow, tenant, new.items)
        self._check_lengths(items)
        if missing := unanswerable(items):
            raise no_call(missing)
        now = int(self._clock())
        conversation = Conversation(
            id=ids.new("conv_"),
            metadata=new.metadata,
            created_at=now,
            last_active_at=now,
            expires_after=new.expires_after,
            context=new.context,
            profile=new.profile,
        )
        await uow.conversations.add(tenant, conversation, self._settings.most_per_tenant)
        return await self._append(uow, tenant, conversation, items)

    def _check_lengths(self, items: Sequence[Item]) -> None:
        """One by one: what is older than the window is left out, but tokenised where it may fit."""
        for item in items:
            self._check_length(chars_of(item), "items")

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        """Raises NotFound."""
        async with self._database.reading() as uow:
            return await self.find(uow, tenant, conversation_id)

    async def find(self, uow: UnitOfWork, tenant: str, conversation_id: str, param: str | None = None) -> Conversation:
        """The same, as a part of `uow`; every way to a conversation begins here. Raises NotFound, naming `param`."""
        conversation = None
        if could_be(conversation_id):
            with suppress(NotFound):  # it is told in the same words as one that has expired
                conversation = await uow.conversations.get(tenant, conversation_id)
        if conversation is None or self._has_expired(conversation):
            raise NotFound(f"No conversation found with id {conversation_id!r}.", param=param)
        return conversation

    async def page(self, tenant: str, request: PageRequest, metadata: Mapping[str, str]) -> Page[Conversation]:
        """Those whose metadata hold all of `metadata`. Raises InvalidRequest for an `after` that is not among them."""
        async with self._database.reading() as uow:
            return await uow.conversations.page(tenant, request, metadata, int(self._clock()))

    async def update(self, tenant: str, conversation_id: str, change: ConversationChange) -> Conversation:
        """Raises InvalidRequest, NotFound."""
        if change.profile is not UNSET and change.profile is not None:
            self._profiles.get(change.profile)
        async with self._database.writing() as uow:
            before = await self.find(uow, tenant, conversation_id)
            after = changed(before, change)
            if "vector_store_ids" in change.context:
                await check_stores(uow, tenant, after.context.vector_store_ids)
            await uow.conversations.update(tenant, after)
            return after

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """With all that was made in it. A turn that is running cannot store its end. Raises NotFound."""
        async with self._database.writing() as uow:
            await self.find(uow, tenant, conversation_id)
            await uow.conversations.delete(tenant, conversation_id)
        await self._forget(tenant, conversation_id)

    async def add_items(
        self, tenant: str, conversation_id: str, items: Sequence[Item | ItemReference]
    ) -> Sequence[Item]:
        """What was added. Raises NotFound, InvalidRequest, ConversationLocked, QuotaExceeded."""
        async with self._database.reading() as uow:
            await self.find(uow, tenant, conversation_id)
            added = await resolved(uow, tenant, items)
            self._check_lengths(added)
            await self._check_calls(uow, tenant, conversation_id, added)
        async with self._between_turns(tenant, conversation_id) as (uow, conversation):
            await self._append(uow, tenant, conversation, added)
        return added

    async def items(self, tenant: str, conversation_id: str, request: PageRequest) -> Page[StoredItem]:
        """Raises NotFound, InvalidRequest for an `after` that is not among them."""
        async with self._database.reading() as uow:
            await self.find(uow, tenant, conversation_id)
            return await uow.items.page(tenant, conversation_id, request)

    async def item(self, tenant: str, conversation_id: str, item_id: str) -> StoredItem:
        """Raises NotFound."""
        async with self._database.reading() as uow:
            await self.find(uow, tenant, conversation_id)
            return await uow.items.get(tenant, conversation_id, plausible(item_id))

    async def delete_item(self, tenant: str, conversation_id: str, item_id: str) -> Conversation:
        """Raises NotFound, ConversationLocked."""
        async with self._between_turns(tenant, conversation_id) as (uow, _):
            stored = await uow.items.get(tenant, conversation_id, plausible(item_id))
            conversation = await uow.items.delete(tenant, conversation_id, item_id)
            await drop_if_in_memory(uow, tenant, conversation_id, stored.seq)
        self._remember(tenant, conversation_id)
        return conversation

    async def preview(self, principal: Principal, conversation_id: str, text: str | None) -> Preview:
        """What the next turn's prompt would hold, with `text` as its question. Raises NotFound, ContextLengthExceeded."""
        conversation = await self.get(principal.tenant, conversation_id)
        question = MessageItem(id=ids.new("msg_"), role="user", content=[InputText(text)]) if text else None
        given = [question] if question else []
        return await self._preview(principal.tenant, conversation, given, principal.profile)

    async def export(self, tenant: str, conversation_id: str) -> Export:
        """Raises NotFound."""
        conversation = await self.get(tenant, conversation_id)
        return Export(conversation, self._pages(tenant, conversation))

    async def _pages(self, tenant: str, conversation: Conversation) -> AsyncGenerator[Sequence[StoredItem], None]:
        request = PageRequest(limit=EXPORT_PAGE, order="asc")
        while True:
            page = await self.items(tenant, conversation.id, request)
            yield [stored for stored in page.data if stored.seq <= conversation.head]
            if not page.has_more or page.data[-1].seq >= conversation.head:
                return
            request = msgspec.structs.replace(request, after=page.data[-1].item.id)

    @asynccontextmanager
    async def _between_turns(self, tenant: str, conversation_id: str) -> AsyncIterator[tuple[UnitOfWork, Conversation]]:
        """A unit of work that is a turn itself: it does not begin while another runs, and none begins until it is over.

        Raises NotFound, ConversationLocked.
        """
        now = self._clock()
        turn = Turn(
            id=ids.new("edit_"),
            tenant=tenant,
            conversation_id=conversation_id,
            owner=self._owner,
            lease_until=now + self._settings.lease_s,
        )
        async with self._database.writing() as uow:
            conversation = await self.find(uow, tenant, conversation_id)
            await uow.turns.begin(turn, now)
            yield uow, conversation
            await uow.turns.end(turn)

    async def _append(
        self, uow: UnitOfWork, tenant: str, conversation: Conversation, items: Sequence[Item]
    ) -> Conversation:
        if not items:
            return conversation
        now, most = int(self._clock()), self._settings.most_items
        return await uow.conversations.append(tenant, conversation.id, items, now=now, most=most)

    async def _check_calls(self, uow: UnitOfWork, tenant: str, conversation_id: str, items: Sequence[Item]) -> None:
        """Looks for the calls whose results `items` are, newest item first. Raises InvalidRequest."""
        missing = unanswerable(items)
        request = PageRequest(limit=PAGE, order="desc")
        while missing:
            page = await uow.items.page(tenant, conversation_id, request)
            missing -= {stored.item.call_id for stored in page.data if isinstance(stored.item, FunctionCallItem)}
            if missing and not page.has_more:
                raise no_call(missing)
            request = msgspec.structs.replace(request, after=page.data[-1].item.id)

    def _has_expired(self, conversation: Conversation) -> bool:
        return conversation.expires_at is not None and conversation.expires_at <= self._clock()


async def check_stores(uow: UnitOfWork, tenant: str, store_ids: Sequence[str]) -> None:
    """That they can be searched is seen anew at each turn. Raises NotFound for those that the tenant does not have."""
    for store_id in store_ids:
        if not could_be(store_id):
            raise NotFound(f"No vector store found with id {store_id!r}.")
        await uow.vector_stores.get(tenant, store_id)


def changed(before: Conversation, change: ConversationChange) -> Conversation:
    return msgspec.structs.replace(
        before,
        metadata=before.metadata if change.metadata is UNSET else change.metadata,
        expires_after=before.expires_after if change.expires_after is UNSET else change.expires_after,
        context=msgspec.structs.replace(before.context, **change.context),
        profile=before.profile if change.profile is UNSET else change.profile,
    )
