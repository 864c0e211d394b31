"""What is asked of the model between the turns: a summary of what falls out, and to read what prompts will begin with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from frontend.domain.conversations import PageRequest, Trim, Window
from frontend.domain.generation import Sampling
from frontend.domain.items import Item
from frontend.domain.principal import Principal
from frontend.domain.storage import Database
from frontend.services.context.summary_prompt import summary_prompt
from frontend.services.generate import Generator
from frontend.services.limits.gate import Gate
from frontend.services.models import Model
from frontend.services.tokenize import Tokenizer

SHARE_OF_WINDOW = 8
"""A summary has this part of the window at most, whatever the settings say."""
STEP_TOKENS = 512
"""So much of a prompt is read at once: while the engine reads, no stream goes on. The 2,048 tokens that vLLM takes at once
stalled them for 5 s on two busy cores, and once for so long that the engine was taken for dead."""
PAGE = 50
"""Items that are read at a time, newest first, until the window is full."""


class Said(msgspec.Struct, frozen=True):
    text: str
    cached_tokens: int


class SummaryWriter:
    def __init__(
        self,
        database: Database,
        tokenizer: Tokenizer,
        generator: Generator,
        gate: Gate,
        *,
        summary_tokens: int,
        step_tokens: int = STEP_TOKENS,
    ) -> None:
        self._database = database
        self._tokenizer = tokenizer
        self._generator = generator
        self._gate = gate
        self._summary_tokens = summary_tokens
        self._step_tokens = step_tokens

    async def write(self, tenant: str, model: Model, window: Window, after: Trim) -> str:
        """Of the old summary and all that `after` leaves out behind it, as far as the model's window holds it."""
        size = min(self._summary_tokens, max(1, model.max_model_len // SHARE_OF_WINDOW))
        async with aclosing(self._left_out(tenant, window, after)) as blocks:
            prompt_ids = await summary_prompt(
                self._tokenizer,
                blocks,
                before=window.conversation.trim.summary,
                summary_tokens=size,
                most_tokens=model.max_model_len - size,
            )
        return (await self._generate(tenant, model, prompt_ids, size)).strip()

    async def read(self, tenant: str, model: Model, prompt_ids: Sequence[int]) -> None:
        """Into the engine's prefix cache; the token that it makes of it is nobody's."""
        await self._generate(tenant, model, prompt_ids, 1)

    async def _left_out(self, tenant: str, window: Window, after: Trim) -> AsyncGenerator[Sequence[Item], None]:
        """Behind `summarised_upto` and up to the new trim, the newest first. What is pinned is not left out."""
        conversation = window.conversation
        first = max([conversation.trim.summarised_upto, *(stored.seq for stored in window.pinned)])
        kept = next((stored.item.id for stored in window.history if stored.seq > after.upto), None)
        page = PageRequest(after=kept, limit=PAGE, order="desc")
        while True:
            async with self._database.reading() as uow:
                found = await uow.items.page(tenant, conversation.id, page)
            items = [stored.item for stored in found.data if first < stored.seq <= after.upto]
            if items:
                yield items
            if not found.has_more or found.data[-1].seq <= first:
                return
            page = msgspec.structs.replace(page, after=found.data[-1].item.id)

    async def _generate(self, tenant: str, model: Model, prompt_ids: Sequence[int], max_tokens: int) -> str:
        """A long prompt is read in steps before."""
        for end in range(self._step_tokens, len(prompt_ids), self._step_tokens):
            cached = (await self._ask(tenant, model, prompt_ids[:end], 1)).cached_tokens
            if end > self._step_tokens and not cached:
                break  # an engine without a cache, or with one that is full
        return (await self._ask(tenant, model, prompt_ids, max_tokens)).text

    async def _ask(self, tenant: str, model: Model, prompt_ids: Sequence[int], max_tokens: int) -> Said:
        """In the tenant's own part of the prefix cache, when there is a place for it."""
        reply = self._generator.open(
            model,
            prompt_ids,
            Sampling(max_tokens=max_tokens, temperature=0),
            default_max_tokens=None,
            prompt_param="conversation",
            stream=False,
            principal=Principal(key_id="", tenant=tenant, scopes=frozenset()),
            traceparent=None,
        )
        text, cached = "", 0
        new_tokens = min(len(prompt_ids), self._step_tokens)
        async with aclosing(self._gate.aside(reply, tenant, new_tokens)) as deltas:
            async for delta in deltas:
                text += "".join(choice.text for choice in delta.choices)
                cached = max(cached, delta.num_cached_tokens)
        return Said(text, cached)
