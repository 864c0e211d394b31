"""What the scripted engine says instead of its fixed text: rules from a file, and the tokens of the reply they choose.

The file is a JSON list of {"when": "a regular expression", "reply": "a text", "finish": "stop" or "length"}. The first
rule whose expression is found in the prompt wins.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from .generation import Generation

END_OF_TURN = "<|im_end|>"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    when: str
    """Searched in the text of the prompt, which keeps its control tokens."""
    reply: Annotated[str, msgspec.Meta(min_length=1)]
    finish: Literal["stop", "length"] = "stop"


class Token(NamedTuple):
    id: int
    text: str
    """What the reply gains with this token: nothing while a character is incomplete."""


class Reply(NamedTuple):
    tokens: list[Token]
    finish: str


class ScriptedReplies:
    """`model`: a folder with tokenizer.json. Raises ValueError for a rule that is none, OSError for a missing file."""

    def __init__(self, rules: Path, model: Path) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_str((model / "tokenizer.json").read_bytes().decode())
        end_of_turn = self._tokenizer.token_to_id(END_OF_TURN)
        if end_of_turn is None:
            raise ValueError(f"{model}: its tokenizer has no {END_OF_TURN}")
        self._end_of_turn = end_of_turn
        self._rules = [(compiled(rule, rules), rule) for rule in read(rules)]

    def find(self, generation: Generation) -> Reply | None:
        """The reply of the first rule that matches; one that stops ends with the control token that ends a turn."""
        if generation.prompt_ids is None:
            prompt = generation.prompt_text or ""
        else:
            prompt = self._tokenizer.decode(list(generation.prompt_ids), skip_special_tokens=False)
        rule = next((rule for when, rule in self._rules if when.search(prompt)), None)
        if rule is None:
            return None
        tokens = self._tokens(rule.reply)
        if rule.finish == "stop":
            tokens.append(Token(self._end_of_turn, ""))
        return Reply(tokens, rule.finish)

    def _tokens(self, text: str) -> list[Token]:
        stream = DecodeStream(skip_special_tokens=True)
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [Token(token_id, stream.step(self._tokenizer, token_id) or "") for token_id in ids]


def read(path: Path) -> list[Rule]:
    """Raises ValueError, with the file and the place in it."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Rule])
    except msgspec.DecodeError as exc:
        raise ValueError(f"{path}: {exc}") from exc


def compiled(rule: Rule, path: Path) -> re.Pattern[str]:
    try:
        return re.compile(rule.when)
    except re.error as exc:
        raise ValueError(f"{path}: {rule.when!r} is not a regular expression: {exc}") from exc
