"""The tensors of `hermes2`: a superset of those of NVIDIA's vLLM backend. Knows names, types and shapes, not Triton.

Inputs of NVIDIA's interface: text_input, stream, sampling_parameters, exclude_input_in_output, return_*.
Ours beside them: input_ids, cache_salt, traceparent, return_token_ids, return_num_cached_tokens, return_error, mailbox, probe.
config.pbtxt declares the same tables, and a contract test holds the two together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from . import sampling
from .errors import BackendError, InvalidArgument
from .generation import Delta, Generation, TokenLogprob

LOWEST_LOGPROB = -9999.0
"""What a guided generation forbids has -inf, which JSON lacks; this is OpenAI's own floor."""

MAILED = frozenset({"finish_reason", "num_output_tokens", "num_cached_tokens"})
"""What a letter tells beside the text: a generation that asks for more has no use for a mailbox."""

Tensors = Mapping[str, NDArray[np.generic]]

INPUTS: Mapping[str, str] = {
    "text_input": "TYPE_STRING",
    "input_ids": "TYPE_INT32",
    "stream": "TYPE_BOOL",
    "sampling_parameters": "TYPE_STRING",
    "exclude_input_in_output": "TYPE_BOOL",
    "return_finish_reason": "TYPE_BOOL",
    "return_cumulative_logprob": "TYPE_BOOL",
    "return_logprobs": "TYPE_BOOL",
    "return_num_input_tokens": "TYPE_BOOL",
    "return_num_output_tokens": "TYPE_BOOL",
    "return_num_cached_tokens": "TYPE_BOOL",
    "return_token_ids": "TYPE_BOOL",
    "return_prompt_logprobs": "TYPE_BOOL",
    "return_error": "TYPE_BOOL",
    "cache_salt": "TYPE_STRING",
    "traceparent": "TYPE_STRING",
    "mailbox": "TYPE_STRING",
    "probe": "TYPE_STRING",
}
OUTPUTS: Mapping[str, str] = {
    "text_output": "TYPE_STRING",
    "finish_reason": "TYPE_STRING",
    "cumulative_logprob": "TYPE_FP32",
    "logprobs": "TYPE_STRING",
    "num_input_tokens": "TYPE_UINT32",
    "num_output_tokens": "TYPE_UINT32",
    "num_cached_tokens": "TYPE_UINT32",
    "token_ids": "TYPE_INT32",
    "prompt_logprobs": "TYPE_STRING",
    "error": "TYPE_STRING",
    "mail": "TYPE_STRING",
    "num_mailed": "TYPE_UINT32",
    "probe_output": "TYPE_STRING",
}
RETURNS = tuple(
    name.removeprefix("return_") for name in INPUTS if name.startswith("return_") and name != "return_error"
)


def decode(inputs: Tensors, parameters: str, max_n: int) -> Generation:
    """Reads one request.

    `inputs`: the tensors that were sent, each (1,), input_ids (tokens,). `parameters`: Triton's request parameters as
    JSON, which stand in for `sampling_parameters` where that tensor is absent, as in NVIDIA's backend.
    Raises InvalidArgument naming the tensor or the sampling parameter.
    """
    prompt_text = text(inputs, "text_input")
    ids = inputs.get("input_ids")
    if (prompt_text is None) == (ids is None):
        raise InvalidArgument("send either text_input or input_ids", "text_input")
    if ids is not None and ids.size == 0:
        raise InvalidArgument("must not be empty", "input_ids")
    stream = flag(inputs, "stream") or False
    exclude = flag(inputs, "exclude_input_in_output")
    if exclude is False and stream:
        raise InvalidArgument("must not be false when streaming", "exclude_input_in_output")
    if exclude is False and prompt_text is None:
        raise InvalidArgument("must not be false with input_ids, which have no text", "exclude_input_in_output")
    returns = frozenset(name for name in RETURNS if flag(inputs, f"return_{name}"))
    if "mailbox" in inputs and returns - MAILED:
        raise InvalidArgument(f"cannot carry {', '.join(sorted(returns - MAILED))}", "mailbox")
    sampling_text = text(inputs, "sampling_parameters")
    return Generation(
        prompt_ids=None if ids is None else ids.ravel().tolist(),
        prompt_text=prompt_text,
        sampling=sampling.parse(parameters if sampling_text is None else sampling_text, max_n),
        stream=stream,
        prepend_input=prompt_text is not None and not stream and not exclude,
        returns=returns,
        cache_salt=text(inputs, "cache_salt") or None,
        traceparent=text(inputs, "traceparent") or None,
    )


def wants_structured_error(inputs: Tensors) -> bool:
    """Whether failures go into the `error` output (ours) instead of Triton's own error (NVIDIA's interface)."""
    try:
        return flag(inputs, "return_error") or False
    except InvalidArgument:
        return False


def is_mailbox(inputs: Tensors) -> bool:
    """Whether the request opens a mailbox; with a prompt it names one."""
    return "mailbox" in inputs and "text_input" not in inputs and "input_ids" not in inputs


def mailbox(inputs: Tensors, request_id: str) -> str | None:
    """The name of the one that the request opens or names. Raises InvalidArgument."""
    name = text(inputs, "mailbox")
    if name == "":
        raise InvalidArgument("must not be empty", "mailbox")
    if name is not None and not request_id:
        raise InvalidArgument("needs a request id, which stands on each letter", "mailbox")
    return name


def encode(delta: Delta, generation: Generation) -> dict[str, NDArray[np.generic]]:
    """The tensors of one response: per-sequence ones (n,), token_ids (sum of num_output_tokens,), counts (1,)."""
    sequences, returns = delta.sequences, generation.returns
    prefix = generation.prompt_text or "" if generation.prepend_input else ""
    tensors: dict[str, NDArray[np.generic]] = {"text_output": strings([prefix + s.text for s in sequences])}
    if "finish_reason" in returns:
        tensors["finish_reason"] = strings([str(s.finish_reason) for s in sequences])
    if "cumulative_logprob" in returns:
        values = [float("nan") if s.cumulative_logprob is None else s.cumulative_logprob for s in sequences]
        tensors["cumulative_logprob"] = np.asarray(values, dtype=np.float32)
    if "logprobs" in returns:
        tensors["logprobs"] = strings([logprobs_json(s.logprobs) for s in sequences])
    if "num_input_tokens" in returns:
        tensors["num_input_tokens"] = np.asarray([delta.num_input_tokens], dtype=np.uint32)
    if "num_output_tokens" in returns:
        tensors["num_output_tokens"] = np.asarray([len(s.token_ids) for s in sequences], dtype=np.uint32)
    if "num_cached_tokens" in returns:
        tensors["num_cached_tokens"] = np.asarray([delta.num_cached_tokens], dtype=np.uint32)
    if "token_ids" in returns:
        tensors["token_ids"] = np.asarray([i for s in sequences for i in s.token_ids], dtype=np.int32)
    if "prompt_logprobs" in returns:
        tensors["prompt_logprobs"] = strings([logprobs_json(delta.prompt_logprobs)])
    return tensors


def encode_mail(letters: Iterable[tuple[str, Delta]]) -> dict[str, NDArray[np.generic]]:
    """One MessagePack array of [request id, num_cached_tokens, [[index, text, num_output_tokens, finish_reason or nil], ...]]
    with those sequences only that gained something."""
    mail = [
        (
            request_id,
            delta.num_cached_tokens,
            [
                (index, s.text, len(s.token_ids), s.finish_reason)
                for index, s in enumerate(delta.sequences)
                if s.text or s.token_ids or s.finish_reason
            ],
        )
        for request_id, delta in letters
    ]
    return {"mail": np.asarray([msgspec.msgpack.encode(mail)], dtype=np.object_)}


def encode_error(error: BackendError) -> dict[str, NDArray[np.generic]]:
    return {"error": strings([error.as_json()])}


def encode_probe(answer: str) -> dict[str, NDArray[np.generic]]:
    return {"probe_output": strings([answer])}


def logprobs_json(logprobs: list[list[TokenLogprob]] | None) -> str:
    """NVIDIA's shape: per position an object from token id to {logprob, rank, decoded_token}."""
    if logprobs is None:
        return "null"
    positions = [
        {
            c.token_id: {"logprob": max(c.logprob, LOWEST_LOGPROB), "rank": c.rank, "decoded_token": c.text}
            for c in candidates
        }
        for candidates in logprobs
    ]
    return json.dumps(positions)


def strings(values: list[str]) -> NDArray[np.generic]:
    return np.asarray([value.encode() for value in values], dtype=np.object_)


def text(inputs: Tensors, name: str) -> str | None:
    tensor = inputs.get(name)
    if tensor is None:
        return None
    value: object = single(tensor, name)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as exc:
            raise InvalidArgument("is not valid UTF-8", name) from exc
    return str(value)


def flag(inputs: Tensors, name: str) -> bool | None:
    tensor = inputs.get(name)
    return None if tensor is None else bool(single(tensor, name))


def single(tensor: NDArray[np.generic], name: str) -> object:
    if tensor.size != 1:
        raise InvalidArgument(f"must hold one element, not {tensor.size}", name)
    value: object = tensor.reshape(-1)[0]
    return value
