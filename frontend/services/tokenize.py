"""Tokenising without stalling the event loop: short prompts at once, long ones in a bounded pool of threads.

What was tokenised before is not tokenised again: a chat comes back with every turn, one turn longer. A turn's ids do not
depend on the others, so they are kept turn by turn.
"""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import TypeAlias, TypeVar

from frontend.domain.errors import ContextLengthExceeded
from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.hermes.tool_prompt import Marked, Pieces
from frontend.domain.messages import Chat
from frontend.observability import tracing

T = TypeVar("T")
Ids: TypeAlias = "array[int]"
"""32 bits each."""
CHARS_PER_TOKEN = 16
"""More than any text has. What has more than so many for each token of the window is refused before anybody tokenises it: 4
MiB of one word would keep a thread for 12 s, and the longest text that is read keeps it for 0.4."""
UNBOUNDED = 2**31
CACHE_BYTES = 32 * 2**20
"""Of one process: about 6 million tokens, or 100,000 short turns."""
ENTRY_BYTES = 280
"""An entry of no tokens: key, array and links; sys.getsizeof of the parts, CPython 3.11."""


class TurnCache:
    """The ids of turns by their text, the least recently used dropped first. For the event loop's thread alone."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._entries: OrderedDict[bytes, Ids] = OrderedDict()
        self.size_bytes = 0

    def get(self, key: bytes) -> Ids | None:
        ids = self._entries.get(key)
        if ids is not None:
            self._entries.move_to_end(key)
        return ids

    def put(self, key: bytes, ids: Ids) -> None:
        """One that would take an eighth of the cache is not kept."""
        if size(ids) > self._most_bytes // 8 or key in self._entries:
            return
        self._entries[key] = ids
        self.size_bytes += size(ids)
        while self.size_bytes > self._most_bytes:
            self.size_bytes -= size(self._entries.popitem(last=False)[1])


def size(ids: Ids) -> int:
    return ENTRY_BYTES + len(ids) * ids.itemsize


def digest(pieces: Pieces) -> bytes:
    """Of the pieces and of whose they are: in ours, tags are tokens. Collisions would be prompts of other tenants."""
    state = hashlib.sha256()
    for piece in pieces:
        encoded = piece.encode()
        state.update(b"%c%d:" % (b"m" if isinstance(piece, Marked) else b"t", len(encoded)))
        state.update(encoded)
    return state.digest()


class Tokenizer:
    """The encoder costs about 1 us a character in common text and 3 us in one long word, and releases the GIL."""

    def __init__(
        self,
        renderer: PromptRenderer,
        executor: Executor,
        inline_chars: int,
        cache_bytes: int = CACHE_BYTES,
        window_tokens: int = UNBOUNDED,
    ) -> None:
        """`window_tokens`: of the model, prompt and answer together."""
        self.renderer = renderer
        self._window_tokens = window_tokens
        self._executor = executor
        self._inline_chars = inline_chars
        self._cache = TurnCache(cache_bytes)

    async def chat(self, chat: Chat) -> list[int]:
        """The ids of a prompt. Raises ContextLengthExceeded."""
        with tracing.span("prompt.build") as span:
            turns = self.renderer.turns(chat)
            self.check_length(sum(len(piece) for pieces in turns for piece in pieces), "messages")
            ids = self.renderer.framed(await self.turns(turns))
            span.set("hermes2.prompt_tokens", len(ids))
            return ids

    def check_length(self, chars: int, param: str) -> None:
        """Raises ContextLengthExceeded for what no prompt could hold, whatever it says."""
        if chars > CHARS_PER_TOKEN * self._window_tokens:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self._window_tokens} tokens, which the {chars} characters in the"
                f" {param} exceed by far. Please reduce the length.",
                param=param,
            )

    async def turns(self, turns: Sequence[Pieces]) -> list[Ids]:
        """The ids of each turn, its control tokens included."""
        keys = [digest(pieces) for pieces in turns]
        found = [self._cache.get(key) for key in keys]
        missing = [pieces for pieces, ids in zip(turns, found, strict=True) if ids is None]
        chars = sum(len(piece) for pieces in missing for piece in pieces)
        encoded = iter(await self._run(chars, lambda: [array("i", self.renderer.turn(pieces)) for pieces in missing]))
        result = []
        for key, ids in zip(keys, found, strict=True):
            if ids is None:
                ids = next(encoded)
                self._cache.put(key, ids)
            result.append(ids)
        return result

    @property
    def raw_prefix(self) -> int:
        """Tokens that `raw` puts before a text."""
        return self.renderer.raw_prefix

    def text(self, token_ids: Sequence[int]) -> str:
        """What these ids say; a character that is cut in two shows as the replacement character."""
        return b"".join(map(self.renderer.token_bytes, token_ids)).decode(errors="replace")

    async def raw(self, prompt: str | list[int]) -> list[int]:
        """Ids stay as they are: who sends them has tokenised already. Raises ContextLengthExceeded."""
        if isinstance(prompt, list):
            return prompt
        self.check_length(len(prompt), "prompt")
        return await self._run(len(prompt), lambda: self.renderer.raw(prompt))

    async def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts, without any control token."""
        return await self._run(sum(map(len, texts)), lambda: [self.renderer.plain(text) for text in texts])

    async def _run(self, chars: int, work: Callable[[], T]) -> T:
        if chars <= self._inline_chars:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
