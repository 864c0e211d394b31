"""Between the wire's sessions and the domain's."""

from __future__ import annotations

from frontend.api.new_conversations import new_conversation
from frontend.api.sessions import schema
from frontend.domain.conversations import Session
from frontend.domain.errors import InvalidRequest
from frontend.domain.seal import TenantSeal
from frontend.services.sessions import NewSession

OF_A_NEW_CONVERSATION = ("profile", "context", "items")


def to_new(data: schema.CreateSession, seal: TenantSeal) -> NewSession:
    """Raises InvalidRequest, naming the parameter."""
    given = data.conversation.id if isinstance(data.conversation, schema.SessionConversation) else data.conversation
    if given is not None:
        for name in OF_A_NEW_CONVERSATION:
            if getattr(data, name) is not None:
                raise InvalidRequest(f"'{name}' is for a new conversation; 'conversation' names one.", param=name)
    return NewSession(
        metadata=data.metadata or {},
        conversation=given or new_conversation(None, data.items, None, data.context, data.profile, seal),
        idle_timeout_s=data.idle_timeout_s,
        lifetime_s=data.lifetime_s,
    )


def body(session: Session) -> schema.SessionBody:
    return schema.SessionBody(
        id=session.id,
        conversation=schema.SessionConversation(session.conversation_id),
        created_at=session.created_at,
        last_used_at=session.last_used_at,
        expires_at=min(session.expires_at, session.last_used_at + session.idle_timeout_s),
        idle_timeout_s=session.idle_timeout_s,
        lifetime_s=session.expires_at - session.created_at,
        metadata=dict(session.metadata),
    )
