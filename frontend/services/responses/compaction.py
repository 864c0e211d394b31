"""A summary in the place of what was said, for a client that keeps its conversation itself."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from frontend.domain import ids
from frontend.domain.generation import Sampling, Usage
from frontend.domain.items import CompactionItem, Item
from frontend.domain.principal import Principal
from frontend.services.added_items import chars_of
from frontend.services.context.summary_prompt import summary_prompt
from frontend.services.context.transcript import is_system
from frontend.services.generate import Generator
from frontend.services.limits.gate import Gate
from frontend.services.models import Model
from frontend.services.responses.task import Compaction
from frontend.services.tokenize import Tokenizer

SUMMARY_TOKENS = 512
SHARE_OF_WINDOW = 4
"""A summary has this part of the window at most."""


class Compactor:
    def __init__(self, tokenizer: Tokenizer, generator: Generator, gate: Gate) -> None:
        self._tokenizer = tokenizer
        self._generator = generator
        self._gate = gate

    async def compact(
        self, items: Sequence[Item], model: Model, principal: Principal, traceparent: str | None
    ) -> Compaction:
        """System messages stay as they are, the newest of all others that fit into the window are summarised.

        Raises what the gate and the engine raise.
        """
        for item in items:
            self._tokenizer.check_length(chars_of(item), "input")
        kept = [item for item in items if is_system(item)]
        size = min(SUMMARY_TOKENS, model.max_model_len // SHARE_OF_WINDOW)
        async with aclosing(newest_first([item for item in items if not is_system(item)])) as blocks:
            prompt_ids = await summary_prompt(
                self._tokenizer, blocks, before=None, summary_tokens=size, most_tokens=model.max_model_len - size
            )
        reply = self._generator.open(
            model,
            prompt_ids,
            Sampling(max_tokens=size, temperature=0),
            default_max_tokens=None,
            prompt_param="input",
            stream=False,
            principal=principal,
            traceparent=traceparent,
        )
        text, tokens, cached = "", 0, 0
        async with aclosing(self._gate.through(reply, principal).deltas) as deltas:
            async for delta in deltas:
                cached = max(cached, delta.num_cached_tokens)
                for choice in delta.choices:
                    text += choice.text
                    tokens += choice.num_tokens
        return Compaction(
            id=ids.new("resp_"),
            created_at=int(time.time()),
            output=[*kept, CompactionItem(id=ids.new("cmp_"), summary=text.strip())],
            usage=Usage(len(prompt_ids), tokens, cached),
        )


async def newest_first(items: Sequence[Item]) -> AsyncGenerator[Sequence[Item], None]:
    """One by one: what does not fit any more is not tokenised."""
    for item in reversed(items):
        yield [item]
