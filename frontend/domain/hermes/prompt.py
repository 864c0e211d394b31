"""ChatML, the prompt format of Hermes-2, rendered in code: control ids from the table, everything else as plain text.

A turn is `<|im_start|>` + encode(role + newline + text) + `<|im_end|>` + encode(newline). Cut anywhere else, between
role and text for instance, and the ids differ from those of the model's own template.
"""

from __future__ import annotations

from collections.abc import Iterable

from frontend.domain.hermes.encoder import Encoder
from frontend.domain.messages import Message
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

    @property
    def end_of_turn(self) -> int:
        """The token with which the model ends its turn."""
        return self._end

    def chat(self, messages: Iterable[Message]) -> list[int]:
        """The prompt for the assistant's next turn."""
        turns = list(messages)
        if self._default_system is not None and (not turns or turns[0].role != "system"):
            turns.insert(0, Message("system", self._default_system))
        ids = list(self._bos)
        for turn in turns:
            ids += [self._start, *self._encoder.encode(f"{turn.role}\n{turn.text}"), self._end, *self._newline]
        return ids + self._opening

    def raw(self, text: str) -> list[int]:
        """The prompt of a plain completion."""
        return self._raw_bos + self._encoder.encode(text)
