"""/v1/conversations and their items."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from litestar import Controller, Request, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.types import ASGIApp

from frontend.api.conversations import mapping, schema
from frontend.api.items.mapping import to_body, to_items
from frontend.api.items.schema import LOGPROBS, RESULTS, Include, ItemBody
from frontend.api.scopes import require_for_context
from frontend.domain.conversations import PageRequest
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.seal import Seal
from frontend.http.answers import answer
from frontend.http.auth import needs, principal_of
from frontend.http.errors import RESPONSES
from frontend.http.json_stream import JsonStream
from frontend.http.pagination import METADATA_FILTER, include_of, page_of
from frontend.services.conversations import ConversationService

AnyRequest = Request[Any, Any, Any]
Conversations = NamedDependency[ConversationService]
Included = NamedDependency[frozenset[str]]
MISSING = {404: RESPONSES[404]}
INCLUDE = {"include": include_of(get_args(Include))}
Question = Annotated[str | None, QueryParameter(max_length=1024, description="A question to try.")]


class ConversationController(Controller):
    path = "/v1/conversations"
    tags = ("Conversations",)
    opt = needs("conversations")

    @post(status_code=200, responses=MISSING)
    async def create(
        self,
        data: JSONBody[schema.CreateConversation],
        request: AnyRequest,
        conversations: Conversations,
        seal: NamedDependency[Seal],
    ) -> schema.ConversationBody:
        """A new conversation, with up to 20 items."""
        require_for_context(principal_of(request), data.context)
        tenant = principal_of(request).tenant
        return mapping.body(await conversations.create(tenant, mapping.to_new(data, seal.of(tenant))))

    @get(dependencies={"page": page_of(), "metadata": METADATA_FILTER})
    async def list(
        self,
        request: AnyRequest,
        conversations: Conversations,
        page: NamedDependency[PageRequest],
        metadata: NamedDependency[dict[str, str]],
    ) -> schema.ConversationList:
        """Ours: the conversations there are, by creation; with `metadata[KEY]=VALUE` those that have all of these."""
        return mapping.conversations(await conversations.page(principal_of(request).tenant, page, metadata))

    @get("/{conversation_id:str}", responses=MISSING)
    async def retrieve(
        self, conversation_id: FromPath[str], request: AnyRequest, conversations: Conversations
    ) -> schema.ConversationBody:
        """One of them."""
        return mapping.body(await conversations.get(principal_of(request).tenant, conversation_id))

    @post("/{conversation_id:str}", status_code=200, responses=MISSING)
    async def update(
        self,
        conversation_id: FromPath[str],
        data: JSONBody[schema.UpdateConversation],
        request: AnyRequest,
        conversations: Conversations,
    ) -> schema.ConversationBody:
        """Changes what is sent, and nothing else."""
        require_for_context(principal_of(request), data.context)
        tenant, change = principal_of(request).tenant, mapping.to_change(data)
        return mapping.body(await conversations.update(tenant, conversation_id, change))

    @delete("/{conversation_id:str}", status_code=200, responses=MISSING)
    async def remove(
        self, conversation_id: FromPath[str], request: AnyRequest, conversations: Conversations
    ) -> schema.ConversationDeleted:
        """Deletes it, its items, its sessions, and the responses that were made in it."""
        await conversations.delete(principal_of(request).tenant, conversation_id)
        return schema.ConversationDeleted(id=conversation_id)

    @get(
        "/{conversation_id:str}/export",
        responses={200: answer(schema.ConversationExport, description="All of it.")} | MISSING,
    )
    async def export(
        self,
        conversation_id: FromPath[str],
        request: AnyRequest,
        conversations: Conversations,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
    ) -> ASGIApp:
        """Ours: the conversation and all its items, oldest first, as one JSON object."""
        tenant = principal_of(request).tenant
        return JsonStream(mapping.export(await conversations.export(tenant, conversation_id), encoder, seal.of(tenant)))

    @get("/{conversation_id:str}/context", responses=MISSING)
    async def context(
        self,
        conversation_id: FromPath[str],
        request: AnyRequest,
        conversations: Conversations,
        input: Question = None,  # noqa: A002  # what is wrong with it is told by its name here
    ) -> schema.ConversationContext:
        """Ours: what the prompt of the next turn would hold, part by part. Changes nothing."""
        return mapping.preview(await conversations.preview(principal_of(request), conversation_id, input))


class ConversationItemController(Controller):
    path = "/v1/conversations/{conversation_id:str}/items"
    tags = ("Conversations",)
    opt = needs("conversations")

    @post(status_code=200, responses=MISSING, dependencies=INCLUDE)
    async def create(
        self,
        conversation_id: FromPath[str],
        data: JSONBody[schema.CreateItems],
        request: AnyRequest,
        conversations: Conversations,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
        include: Included,
    ) -> schema.ConversationItemList:
        """Adds up to 20 items; 400 `conversation_locked` while a turn of the conversation runs."""
        tenant = principal_of(request).tenant
        sent = to_items(data.items, "items", seal.of(tenant))
        added = await conversations.add_items(tenant, conversation_id, sent)
        return mapping.items(
            added, encoder, seal.of(tenant), with_logprobs=LOGPROBS in include, with_results=RESULTS in include
        )

    @get(responses=MISSING, dependencies=INCLUDE | {"page": page_of()})
    async def list(
        self,
        conversation_id: FromPath[str],
        request: AnyRequest,
        conversations: Conversations,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
        page: NamedDependency[PageRequest],
        include: Included,
    ) -> schema.ConversationItemList:
        """Its items, the newest first."""
        tenant = principal_of(request).tenant
        found = await conversations.items(tenant, conversation_id, page)
        return mapping.items(
            mapping.stored_items(found),
            encoder,
            seal.of(tenant),
            with_logprobs=LOGPROBS in include,
            with_results=RESULTS in include,
            has_more=found.has_more,
        )

    @get("/{item_id:str}", responses=MISSING, dependencies=INCLUDE)
    async def retrieve(
        self,
        conversation_id: FromPath[str],
        item_id: FromPath[str],
        request: AnyRequest,
        conversations: Conversations,
        encoder: NamedDependency[Encoder],
        seal: NamedDependency[Seal],
        include: Included,
    ) -> ItemBody:
        """One of its items."""
        tenant = principal_of(request).tenant
        stored = await conversations.item(tenant, conversation_id, item_id)
        return to_body(stored.item, encoder, seal.of(tenant), LOGPROBS in include, RESULTS in include)

    @delete("/{item_id:str}", status_code=200, responses=MISSING)
    async def remove(
        self, conversation_id: FromPath[str], item_id: FromPath[str], request: AnyRequest, conversations: Conversations
    ) -> schema.ConversationBody:
        """Takes an item out; 400 `conversation_locked` while a turn of the conversation runs."""
        return mapping.body(await conversations.delete_item(principal_of(request).tenant, conversation_id, item_id))
