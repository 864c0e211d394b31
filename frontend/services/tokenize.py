"""Tokenising without stalling the event loop: short prompts at once, long ones in a bounded pool of threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.messages import Chat


class Tokenizer:
    """The encoder costs about 1 us a character in common text and 3 us in one long word, and releases the GIL."""

    def __init__(self, renderer: PromptRenderer, executor: Executor, inline_chars: int) -> None:
        self._renderer = renderer
        self._executor = executor
        self._inline_chars = inline_chars

    async def chat(self, chat: Chat) -> list[int]:
        turns = self._renderer.turns(chat)
        size = sum(len(piece) for pieces in turns for piece in pieces)
        return await self._run(size, lambda: self._renderer.prompt(turns))

    @property
    def raw_prefix(self) -> int:
        """Tokens that `raw` puts before a text."""
        return self._renderer.raw_prefix

    def text(self, token_ids: list[int]) -> str:
        """What these ids say; a character that is cut in two shows as the replacement character."""
        return b"".join(map(self._renderer.token_bytes, token_ids)).decode(errors="replace")

    async def raw(self, prompt: str | list[int]) -> list[int]:
        """Ids stay as they are: who sends them has tokenised already."""
        if isinstance(prompt, list):
            return prompt
        return await self._run(len(prompt), lambda: self._renderer.raw(prompt))

    async def _run(self, size: int, work: Callable[[], list[int]]) -> list[int]:
        if size <= self._inline_chars:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
