"""Sessions: handles on one conversation that the server issues and that end by themselves. Turns are not taken here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec

from frontend.domain import ids
from frontend.domain.conversations import Session
from frontend.domain.errors import InvalidRequest, NotFound
from frontend.domain.storage import Database, UnitOfWork
from frontend.services.conversations import ConversationService, NewConversation
from frontend.services.resource_ids import could_be
from frontend.settings import ConversationSettings

HEADER = "X-Session-ID"
TOUCH_S = 60
"""The last use of a session is written down when the one that is known is so old, or a quarter of the idle timeout:
a conversation in full flow costs one write a minute, and a session ends at most so much too early."""


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    metadata: Mapping[str, str]
    conversation: str | NewConversation
    """The id of one that is there, or what the new one is made of."""
    idle_timeout_s: int | None = None
    """None: the longest that there is."""
    lifetime_s: int | None = None


class SessionService:
    def __init__(
        self,
        database: Database,
        conversations: ConversationService,
        settings: ConversationSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._conversations = conversations
        self._settings = settings
        self._clock = clock

    async def create(self, tenant: str, new: NewSession) -> Session:
        """Raises InvalidRequest, NotFound (the conversation), QuotaExceeded."""
        idle_timeout_s = bounded(new.idle_timeout_s, self._settings.session_idle_s, "idle_timeout_s")
        lifetime_s = bounded(new.lifetime_s, self._settings.session_lifetime_s, "lifetime_s")
        async with self._database.writing() as uow:
            if isinstance(new.conversation, str):
                conversation = await self._conversations.find(uow, tenant, new.conversation, param="conversation")
            else:
                conversation = await self._conversations.add(uow, tenant, new.conversation)
            now = int(self._clock())
            session = Session(
                id=ids.new("sess_"),
                conversation_id=conversation.id,
                metadata=new.metadata,
                created_at=now,
                last_used_at=now,
                idle_timeout_s=idle_timeout_s,
                expires_at=now + lifetime_s,
            )
            await uow.sessions.add(tenant, session, self._settings.sessions_per_tenant)
            return session

    async def get(self, tenant: str, session_id: str) -> Session:
        """A look is not a use. Raises NotFound."""
        async with self._database.reading() as uow:
            return await self._find(uow, tenant, session_id, self._clock(), None)

    async def resolve(self, tenant: str, session_id: str, now: float) -> Session:
        """For a turn: the session that its header names, which is used now. Raises NotFound."""
        async with self._database.reading() as uow:
            session = await self._find(uow, tenant, session_id, now, HEADER)
        if now - session.last_used_at < min(TOUCH_S, session.idle_timeout_s / 4):
            return session
        async with self._database.writing() as uow:
            session = await self._find(uow, tenant, session_id, now, HEADER)
            await uow.sessions.touch(tenant, session_id, int(now))
        return msgspec.structs.replace(session, last_used_at=int(now))

    async def delete(self, tenant: str, session_id: str) -> None:
        """Its conversation stays. Raises NotFound."""
        async with self._database.writing() as uow:
            await self._find(uow, tenant, session_id, self._clock(), None)
            await uow.sessions.delete(tenant, session_id)

    async def _find(self, uow: UnitOfWork, tenant: str, session_id: str, now: float, param: str | None) -> Session:
        """Whether it was never there, is another's or has ended, alone or with its conversation, is told in the same words."""
        if could_be(session_id):
            try:
                session = await uow.sessions.get(tenant, session_id)
                await self._conversations.find(uow, tenant, session.conversation_id)
            except NotFound:
                pass
            else:
                if session.is_alive(now):
                    return session
        raise NotFound("There is no such session: it was never made, was deleted, or has expired.", param=param)


def bounded(asked: int | None, most: int, param: str) -> int:
    """Raises InvalidRequest."""
    if asked is not None and asked > most:
        raise InvalidRequest(f"Invalid value for '{param}': at most {most} seconds.", param=param)
    return most if asked is None else asked
