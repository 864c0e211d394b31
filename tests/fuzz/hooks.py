"""What schemathesis loads, in its own environment, so that enough of its bodies get past the rules no schema tells."""

from __future__ import annotations

import json
import zlib
from typing import Any

import schemathesis

NOT_SUPPORTED = (
    "audio",
    "best_of",
    "function_call",
    "functions",
    "modalities",
    "moderation",
    "prediction",
    "profile",
    "response_format",
    "store",
    "stream_options",
    "suffix",
    "tool_choice",
    "tools",
    "top_logprobs",
    "web_search_options",
)
"""Fields that most of their values are refused for, each for a reason that stands in docs/api.md."""


@schemathesis.hook
def before_call(context: object, case: Any, kwargs: dict[str, Any]) -> None:
    """Every body asks for a model that exists; one in two leaves out what would mostly be refused.

    Neither makes a valid body invalid or the other way round: a field is only ever given another value of its type, or
    taken away where it was valid.
    """
    body = case.body
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return
    body = body | {"model": "hermes-2-embedder" if case.path == "/v1/embeddings" else "hermes-2"}
    if case.meta.generation.mode.is_positive and zlib.crc32(json.dumps(body).encode()) % 2:
        body = {name: value for name, value in body.items() if name not in NOT_SUPPORTED}
        if "n" in body:
            body["n"] = 2
        if "messages" in body:
            body["messages"] = [plain(message) for message in body["messages"] if message["role"] != "tool"] or [HELLO]
    case.body = body


HELLO = {"role": "user", "content": "Hello"}


def plain(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] != "assistant":
        return message
    return {"role": "assistant", "content": message.get("content") or message.get("refusal") or ""}
