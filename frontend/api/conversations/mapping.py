"""Between the wire's conversations and the domain's."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
from msgspec import UNSET

from frontend.api.conversations import schema
from frontend.api.items.mapping import to_body
from frontend.api.new_conversations import ConversationExpiry, expiry, new_conversation
from frontend.domain.conversations import ContextSettings, Conversation, Page
from frontend.domain.errors import InvalidRequest
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.items import Item, StoredItem
from frontend.domain.seal import TenantSeal
from frontend.services.conversations import ConversationChange, Export, NewConversation, Preview

EXPORT_PIECE_BYTES = 64 * 1024
_encode = msgspec.json.Encoder().encode


def to_new(data: schema.CreateConversation, seal: TenantSeal) -> NewConversation:
    return new_conversation(data.metadata, data.items, data.expires_after, data.context, data.profile, seal)


def to_change(data: schema.UpdateConversation) -> ConversationChange:
    """Raises InvalidRequest if nothing is to be changed."""
    if all(getattr(data, name) is UNSET for name in data.__struct_fields__):
        raise InvalidRequest(
            "Missing required parameter: 'metadata'.", param="metadata", code="missing_required_parameter"
        )
    return ConversationChange(
        metadata=UNSET if data.metadata is UNSET else data.metadata or {},
        expires_after=UNSET if data.expires_after is UNSET else expiry(data.expires_after),
        context={} if data.context is UNSET else data.context.values,
        profile=data.profile,
    )


def body(conversation: Conversation) -> schema.ConversationBody:
    expires = conversation.expires_after
    return schema.ConversationBody(
        id=conversation.id,
        created_at=conversation.created_at,
        metadata=dict(conversation.metadata),
        last_active_at=conversation.last_active_at,
        expires_after=None if expires is None else ConversationExpiry(anchor=expires.anchor, seconds=expires.seconds),
        expires_at=conversation.expires_at,
        context=context_body(conversation.context),
        profile=conversation.profile,
    )


def context_body(context: ContextSettings) -> schema.ContextBody:
    return schema.ContextBody(**msgspec.structs.asdict(context))


def conversations(page: Page[Conversation]) -> schema.ConversationList:
    data = [body(conversation) for conversation in page.data]
    return schema.ConversationList(
        data=data, first_id=data[0].id if data else "", last_id=data[-1].id if data else "", has_more=page.has_more
    )


def items(
    items: Sequence[Item],
    encoder: Encoder,
    seal: TenantSeal,
    *,
    with_logprobs: bool,
    with_results: bool,
    has_more: bool = False,
) -> schema.ConversationItemList:
    data = [to_body(item, encoder, seal, with_logprobs, with_results) for item in items]
    return schema.ConversationItemList(
        data=data, first_id=data[0].id if data else "", last_id=data[-1].id if data else "", has_more=has_more
    )


async def export(data: Export, encoder: Encoder, seal: TenantSeal) -> AsyncGenerator[bytes, None]:
    """A ConversationExport as JSON, in pieces of some EXPORT_PIECE_BYTES: 20,000 items are never in memory together."""
    piece = bytearray(_encode({"object": "conversation.export", "conversation": body(data.conversation)})[:-1])
    piece += b',"items":['
    separator = b""
    async with aclosing(data.pages) as pages:
        async for page in pages:
            for stored in page:
                piece += separator + _encode(to_body(stored.item, encoder, seal, True, True))
                separator = b","
                if len(piece) >= EXPORT_PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
    yield bytes(piece) + b"]}"


def stored_items(page: Page[StoredItem]) -> list[Item]:
    return [stored.item for stored in page.data]


def preview(data: Preview) -> schema.ConversationContext:
    context = data.context
    return schema.ConversationContext(
        conversation_id=data.conversation.id,
        window_tokens=data.window_tokens,
        prompt_tokens=len(context.prompt_ids),
        cached_prefix_tokens=context.prefix_tokens,
        answer_tokens=context.answer_tokens,
        history_room_tokens=context.room_tokens,
        parts=[
            schema.ContextPartBody(
                part.name,
                part.tokens,
                [schema.ContextTurnBody(turn.role, turn.text, turn.tokens) for turn in part.turns],
            )
            for part in context.parts
        ],
        degraded=list(data.degraded),
        trim=schema.ContextTrimBody(upto=context.trim.upto, summary=context.trim.summary),
        context=context_body(data.conversation.context),
    )
