"""Reads `sampling_parameters`: names of vLLM's SamplingParams, with the strings that some clients send coerced.

NVIDIA's genai-perf sends every value as a string ("0", "true"). A value that is not what its name needs, and a name
that is not in the table, answer INVALID_ARG with the name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping

from .errors import InvalidArgument

Coerce = Callable[[object], object]


def integer(value: object) -> int:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, str):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int):
        return value
    raise ValueError


def number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    result = float(value)
    if not math.isfinite(result):
        raise ValueError
    return result


def boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "1"):
        return True
    if isinstance(value, str) and value.lower() in ("false", "0"):
        return False
    raise ValueError


def strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise ValueError


def integers(value: object) -> list[int]:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, list):
        raise ValueError
    return [integer(item) for item in value]


def biases(value: object) -> dict[int, float]:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, dict):
        raise ValueError
    return {integer(key): number(bias) for key, bias in value.items()}


def structure(value: object) -> dict[str, str]:
    """A JSON schema or a structural tag as JSON text: nothing else that vLLM could compile is taken from a client."""
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, dict) or len(value) != 1 or not set(value) <= {"json", "structural_tag"}:
        raise ValueError
    return {kind: text if isinstance(text, str) else json.dumps(text) for kind, text in value.items()}


PARAMETERS: Mapping[str, tuple[Coerce, str]] = {
    "n": (integer, "an integer"),
    "presence_penalty": (number, "a number"),
    "frequency_penalty": (number, "a number"),
    "repetition_penalty": (number, "a number"),
    "temperature": (number, "a number"),
    "top_p": (number, "a number"),
    "top_k": (integer, "an integer"),
    "min_p": (number, "a number"),
    "seed": (integer, "an integer"),
    "stop": (strings, "a string or a list of strings"),
    "stop_token_ids": (integers, "a list of integers"),
    "include_stop_str_in_output": (boolean, "true or false"),
    "ignore_eos": (boolean, "true or false"),
    "max_tokens": (integer, "an integer"),
    "min_tokens": (integer, "an integer"),
    "logprobs": (integer, "an integer"),
    "prompt_logprobs": (integer, "an integer"),
    "logit_bias": (biases, "an object of token ids and numbers"),
    "structured_outputs": (structure, 'an object {"json": schema} or {"structural_tag": tag}'),
    "bad_words": (strings, "a string or a list of strings"),
    "skip_special_tokens": (boolean, "true or false"),
    "spaces_between_special_tokens": (boolean, "true or false"),
}


def parse(text: str, max_n: int) -> dict[str, object]:
    """The keyword arguments for vLLM's SamplingParams; absent and null ones are left to vLLM's defaults.

    Raises InvalidArgument with the parameter's name. Ranges are vLLM's to judge; only `n`, which multiplies work
    before vLLM looks, is bounded here (1 .. max_n).
    """
    try:
        given = json.loads(text) if text.strip() else {}
    except ValueError as exc:
        raise InvalidArgument(f"not valid JSON ({exc})", "sampling_parameters") from exc
    if not isinstance(given, dict):
        raise InvalidArgument("must be a JSON object", "sampling_parameters")
    parsed: dict[str, object] = {}
    for name, value in given.items():
        if name not in PARAMETERS:
            raise InvalidArgument("unknown sampling parameter", name)
        if value is None:
            continue
        coerce, expected = PARAMETERS[name]
        try:
            parsed[name] = coerce(value)
        except (ValueError, TypeError, OverflowError) as exc:
            raise InvalidArgument(f"must be {expected}, not {json.dumps(value)[:80]}", name) from exc
    n = parsed.get("n", 1)
    assert isinstance(n, int)
    if not 1 <= n <= max_n:
        raise InvalidArgument(f"must be between 1 and {max_n}, not {n}", "n")
    return parsed
