"""ChatML, the prompt format of Hermes-2, rendered in code: control ids from the table, everything else as plain text.

A turn is `<|im_start|>` + encode(role + newline + text) + `<|im_end|>` + encode(newline). Cut anywhere else, between
role and text for instance, and the ids differ from those of the model's own template. Inside a turn there are cuts only at
tags of ours that are tokens of the model, such as `<tool_call>` in Hermes-2-Pro.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from frontend.domain.hermes import tool_prompt
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.hermes.tool_prompt import Marked, Pieces
from frontend.domain.messages import Chat, Message
from frontend.domain.model_card import ChatFormat

START, END = "<|im_start|>", "<|im_end|>"


class PromptRenderer:
    """The ids of a chat for one model. Raises KeyError at construction if the model lacks ChatML's control tokens."""

    def __init__(self, encoder: Encoder, chat: ChatFormat, raw_bos: str | None) -> None:
        self._encoder = encoder
        self._default_system = chat.default_system
        self._bos = [encoder.control(chat.bos)] if chat.bos else []
        self._raw_bos = [encoder.control(raw_bos)] if raw_bos else []
        self._start = encoder.control(START)
        self._end = encoder.control(END)
        self._newline = encoder.encode("\n")
        self._opening = [self._start, *encoder.encode("assistant\n")]
        tags = [tag for tag in tool_prompt.TAGS if tag in encoder.control_tokens]
        self._tags = re.compile(f"({'|'.join(map(re.escape, tags))})") if tags else None

    @property
    def end_of_turn(self) -> int:
        """The token with which the model ends its turn."""
        return self._end

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that one token stands for."""
        return self._encoder.token_bytes(token_id)

    @property
    def raw_prefix(self) -> int:
        """How many tokens stand before the text of a plain completion."""
        return len(self._raw_bos)

    def turns(self, chat: Chat) -> list[Pieces]:
        """The text of every turn, its role first. What is told of tools and JSON comes first: it changes least."""
        return [[f"{role}\n", *pieces] for role, pieces in self._turns(chat)]

    def message(self, message: Message) -> Pieces:
        """The text of one message's turn, its role first; it does not depend on the others."""
        return [f"{message.role}\n", *tool_prompt.message_turn(message)]

    def turn(self, pieces: Pieces) -> list[int]:
        """The ids of one turn; they do not depend on the others."""
        return [self._start, *self._encode(pieces), self._end, *self._newline]

    def prompt(self, turns: Iterable[Pieces]) -> list[int]:
        """The ids of these turns, and of the beginning of the assistant's next one."""
        return self.framed(map(self.turn, turns))

    def framed(self, turns: Iterable[Iterable[int]]) -> list[int]:
        """The same from the ids of each turn."""
        ids = list(self._bos)
        for turn in turns:
            ids += turn
        return ids + self._opening

    @property
    def opening_tokens(self) -> int:
        """How many ids stand behind the last turn."""
        return len(self._opening)

    def _turns(self, chat: Chat) -> Iterator[tuple[str, Pieces]]:
        if chat.tools:
            yield "system", tool_prompt.tools_turn(chat.tools, chat.tool_style)
        if chat.json_schema is not None:
            yield "system", tool_prompt.schema_turn(chat.json_schema)
        own_system = chat.tools or chat.json_schema is not None
        begins_with_system = chat.messages and chat.messages[0].role == "system"
        if self._default_system is not None and not own_system and not begins_with_system:
            yield "system", [self._default_system]
        for message in chat.messages:
            yield message.role, tool_prompt.message_turn(message)

    def _encode(self, pieces: Pieces) -> list[int]:
        """Ids of one turn: tags of ours are the model's own tokens if it has them, all the rest is text in one run."""
        ids: list[int] = []
        text = ""
        for piece in pieces:
            parts = self._tags.split(piece) if self._tags and isinstance(piece, Marked) else [piece]
            for position, part in enumerate(parts):
                if position % 2:
                    ids += [*self._encoder.encode(text), self._encoder.control(part)]
                    text = ""
                else:
                    text += part
        return ids + self._encoder.encode(text)

    def plain(self, text: str) -> list[int]:
        """The ids of a text that stands nowhere yet."""
        return self._encoder.encode(text)

    def raw(self, text: str) -> list[int]:
        """The prompt of a plain completion."""
        return self._raw_bos + self._encoder.encode(text)
