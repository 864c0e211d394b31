"""Responses: making them, reading them, following them, ending them."""

from __future__ import annotations

import time

import msgspec

from frontend.domain.conversations import Page, PageRequest
from frontend.domain.errors import InvalidRequest
from frontend.domain.items import StoredItem
from frontend.domain.principal import Principal
from frontend.domain.responses import Response
from frontend.domain.storage import Database
from frontend.services.limits.gate import Gate
from frontend.services.responses.background import BackgroundRuns
from frontend.services.responses.compaction import Compactor
from frontend.services.responses.maker import ResponseMaker, known_form
from frontend.services.responses.task import Compaction, ResponseTask, Run


class ResponseService:
    def __init__(
        self, database: Database, maker: ResponseMaker, background: BackgroundRuns, compactor: Compactor, gate: Gate
    ) -> None:
        self._database = database
        self._maker = maker
        self._background = background
        self._compactor = compactor
        self._gate = gate

    async def create(self, task: ResponseTask, principal: Principal, traceparent: str | None) -> Run:
        """In the background it has begun when this returns; otherwise it begins when its events are first read.

        Raises InvalidRequest and what is below it, NotFound, Unavailable, and RateLimited in the background; as does the
        first event.
        """
        if not task.background:
            prepared = await self._maker.prepare(task, principal, traceparent)
            return Run(prepared.response, self._maker.events(prepared, principal, traceparent))
        with self._background.place(principal.tenant):
            prepared = await self._maker.prepare(task, principal, traceparent)
            async with self._gate.share(prepared.reply, principal) as entry:
                run = await self._maker.begin(prepared, entry, principal, traceparent)
                self._background.start(principal.tenant, run.response.id, run, self._gate.keep(entry))
        return Run(run.response, self._background.follow(principal.tenant, run.response.id, -1))

    async def get(self, tenant: str, response_id: str) -> Response:
        """Raises NotFound."""
        async with self._database.reading() as uow:
            return await uow.responses.get(tenant, known_form(response_id))

    async def follow(self, tenant: str, response_id: str, after: int) -> Run:
        """Raises NotFound, and InvalidRequest for a response that was made without a stream or has forgotten it."""
        async with self._database.reading() as uow:
            response = await uow.responses.get(tenant, known_form(response_id))
            known = await uow.responses.events(tenant, response_id, -1)
        ended_early = response.background and response.status in ("cancelled", "failed")
        if not (response.running or known or ended_early):
            raise InvalidRequest(
                "This response cannot be streamed: it was made without 'stream', or too long ago.", param="stream"
            )
        return Run(response, self._background.follow(tenant, response_id, after))

    async def cancel(self, tenant: str, response_id: str) -> Response:
        """Raises NotFound, and InvalidRequest for what does not run in the background."""
        response = await self.get(tenant, response_id)
        if not response.background:
            raise InvalidRequest(
                "Only a response that was made with 'background' can be cancelled.", param="response_id"
            )
        if response.running:
            ended = msgspec.structs.replace(response, status="cancelled", completed_at=int(time.time()))
            async with self._database.writing() as uow:
                await uow.responses.end(tenant, ended)
            await self._background.cancel(tenant, response_id)
            response = await self.get(tenant, response_id)
        if response.status != "cancelled":
            raise InvalidRequest(f"The response has ended already: it is {response.status}.", param="response_id")
        return response

    async def delete(self, tenant: str, response_id: str) -> None:
        """Running or not. Raises NotFound."""
        async with self._database.writing() as uow:
            await uow.responses.delete(tenant, known_form(response_id))
        await self._background.cancel(tenant, response_id)

    async def input_items(self, tenant: str, response_id: str, page: PageRequest) -> Page[StoredItem]:
        """Raises NotFound, InvalidRequest."""
        async with self._database.reading() as uow:
            await uow.responses.get(tenant, known_form(response_id))
            return await uow.responses.input_page(tenant, response_id, page)

    async def count_tokens(self, task: ResponseTask, principal: Principal) -> int:
        """Of the prompt that the task would have, without a look at the window. Raises InvalidRequest, NotFound."""
        return await self._maker.count_tokens(task, principal)

    async def compact(self, task: ResponseTask, principal: Principal, traceparent: str | None) -> Compaction:
        """Stores nothing. Raises InvalidRequest, NotFound, and what the engine raises."""
        model, items = await self._maker.items(task, principal.tenant)
        if not items:
            raise InvalidRequest("There is nothing to compact.", param="input")
        return await self._compactor.compact(items, model, principal, traceparent)
