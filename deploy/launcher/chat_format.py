"""Reads off a model's own chat template how its ChatML is written, or refuses a model that speaks something else.

The frontend renders prompts in code (frontend/domain/hermes), so the template is never run while serving. Here it is
run once, in a sandbox, on chats made for the purpose; what it writes must be ChatML up to two things: a control token
in front, and a system turn of its own when a chat has none.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from deploy.launcher.problem import Problem
from frontend.domain.model_card import ChatFormat

Chat = list[dict[str, str]]

PROBE: Chat = [
    {"role": "system", "content": "  a system text \n"},
    {"role": "user", "content": "\n  a question "},
    {"role": "assistant", "content": " an answer\n"},
    {"role": "user", "content": "another question"},
]


def derive(folder: Path) -> tuple[ChatFormat, str | None]:
    """The chat format of the model in `folder`, and the control token that goes before a raw prompt.

    Raises Problem if there is no template or if it is not ChatML.
    """
    config = read_json(folder / "tokenizer_config.json")
    template = Template(find_template(folder, config), special_tokens(config))
    rendered = template.render(PROBE)
    prefix, mark, _ = rendered.partition("<|im_start|>")
    bos = prefix or None
    if not mark or rendered != prefix + chatml(PROBE):
        raise Problem(f"{folder.name}: its chat template is not ChatML, the format that Hermes-2 speaks")
    alone, tail = template.render(PROBE[1:2]), chatml(PROBE[1:2])
    if not (alone.startswith(prefix) and alone.endswith(tail)):
        raise Problem(f"{folder.name}: its chat template writes more than ChatML around a chat without a system turn")
    added = alone.removeprefix(prefix).removesuffix(tail)
    system = re.fullmatch(r"<\|im_start\|>system\n(.*?)<\|im_end\|>\n", added, re.DOTALL)
    if added and system is None:
        raise Problem(f"{folder.name}: its chat template puts something other than a system turn before a chat")
    return ChatFormat(bos=bos, default_system=system[1] if system else None), raw_bos(folder)


def chatml(chat: Chat, generation_prompt: bool = True) -> str:
    turns = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in chat)
    return turns + ("<|im_start|>assistant\n" if generation_prompt else "")


class Template:
    """A model's chat template, run the way transformers runs it."""

    def __init__(self, source: str, tokens: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = refuse
        self._template = environment.from_string(source)
        self._tokens = tokens

    def render(self, chat: Chat) -> str:
        try:
            return self._template.render(messages=chat, add_generation_prompt=True, **self._tokens)
        except TemplateError as exc:
            raise Problem(f"the model's chat template fails on a plain chat: {exc}") from exc


def refuse(message: str) -> None:
    raise TemplateError(message)


def find_template(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text()
    template = config.get("chat_template")
    if isinstance(template, list):  # Hermes-2-Pro has two: the plain one, and one for tools
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if not isinstance(template, str):
        raise Problem(f"{folder.name}: the model has no chat template, so its chat format is unknown")
    return template


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens = {name: config.get(name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return {name: value["content"] if isinstance(value, dict) else value for name, value in tokens.items() if value}


def raw_bos(folder: Path) -> str | None:
    """What the tokenizer's post-processor puts before a single text."""
    for step in steps(read_json(folder / "tokenizer.json").get("post_processor")):
        for piece in step.get("single", [])[:1]:
            if "SpecialToken" in piece:
                return str(piece["SpecialToken"]["id"])
    return None


def steps(processor: dict[str, Any] | None) -> list[dict[str, Any]]:
    if processor is None:
        return []
    return processor["processors"] if processor["type"] == "Sequence" else [processor]


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise Problem(f"{path} cannot be read: {exc}") from exc
    assert isinstance(value, dict)
    return value
