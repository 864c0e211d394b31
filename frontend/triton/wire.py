"""The tensors of `hermes2` as bytes of KServe's gRPC messages; its other half is hermes2_backend/wire.py on Triton's side.

Raw contents are built and read here, without numpy and without tritonclient's objects: a response is read in one pass.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from tritonclient.grpc import service_pb2 as pb

from frontend.domain.generation import (
    Candidate,
    ChoiceDelta,
    FinishReason,
    GenerationDelta,
    GenerationRequest,
    TokenLogprobs,
)
from frontend.triton.structural_tag import structural_tag

MODEL = "hermes2"
INPUTS: Mapping[str, str] = {
    "input_ids": "INT32",
    "stream": "BOOL",
    "sampling_parameters": "BYTES",
    "exclude_input_in_output": "BOOL",
    "return_finish_reason": "BOOL",
    "return_logprobs": "BOOL",
    "return_num_output_tokens": "BOOL",
    "return_num_cached_tokens": "BOOL",
    "return_token_ids": "BOOL",
    "return_prompt_logprobs": "BOOL",
    "return_error": "BOOL",
    "cache_salt": "BYTES",
    "traceparent": "BYTES",
    "mailbox": "BYTES",
    "probe": "BYTES",
}
OUTPUTS: Mapping[str, str] = {
    "text_output": "BYTES",
    "finish_reason": "BYTES",
    "logprobs": "BYTES",
    "num_output_tokens": "UINT32",
    "num_cached_tokens": "UINT32",
    "token_ids": "INT32",
    "prompt_logprobs": "BYTES",
    "error": "BYTES",
    "mail": "BYTES",
    "num_mailed": "UINT32",
    "probe_output": "BYTES",
}
FINISH_REASONS: Mapping[str | None, FinishReason] = {"stop": "stop", "length": "length"}


class WireError(msgspec.Struct, frozen=True):
    """The structured error of hermes2. `code`: INVALID_ARG, UNAVAILABLE, INTERNAL."""

    code: str
    message: str
    param: str | None = None


class WireLogprob(msgspec.Struct, frozen=True):
    logprob: float
    rank: int | None = None


Letter = tuple[str, int, list[tuple[int, str, int, str | None]]]
"""A request's id, num_cached_tokens, and of each choice that gained something index, text, tokens and finish_reason."""

_decode_mail = msgspec.msgpack.Decoder(list[Letter]).decode
_decode_error = msgspec.json.Decoder(WireError).decode
_decode_logprobs = msgspec.json.Decoder(list[dict[int, WireLogprob]] | None).decode
_encode = msgspec.json.Encoder().encode


def generate_request(request: GenerationRequest, request_id: str, mailbox: str | None = None) -> Any:
    """One ModelInferRequest. `mailbox`: by which all deltas are to come but the last."""
    tensors: dict[str, tuple[int, bytes]] = {
        "input_ids": (len(request.prompt_ids), struct.pack(f"<{len(request.prompt_ids)}i", *request.prompt_ids)),
        "sampling_parameters": text(_encode(sampling_parameters(request))),
        "stream": flag(request.stream),
        "exclude_input_in_output": flag(True),
        "return_finish_reason": flag(True),
        "return_num_output_tokens": flag(True),
        "return_num_cached_tokens": flag(True),
        "return_error": flag(True),
        "cache_salt": text(request.cache_salt.encode()),
    }
    if request.sampling.logprobs is not None:
        tensors["return_logprobs"] = flag(True)
        tensors["return_token_ids"] = flag(True)
    if request.sampling.prompt_logprobs is not None:
        tensors["return_prompt_logprobs"] = flag(True)
    if request.traceparent:
        tensors["traceparent"] = text(request.traceparent.encode())
    if mailbox is not None:
        tensors["mailbox"] = text(mailbox.encode())
    return infer_request(request_id, tensors)


def fits_letters(request: GenerationRequest) -> bool:
    """Whether a mailbox can bring what it gains."""
    return request.stream and request.sampling.logprobs is None and request.sampling.prompt_logprobs is None


def mailbox_request(name: str) -> Any:
    return infer_request(name, {"mailbox": text(name.encode()), "return_error": flag(True)})


def sampling_parameters(request: GenerationRequest) -> dict[str, Any]:
    """vLLM's names and values."""
    parameters: dict[str, Any] = msgspec.to_builtins(request.sampling)
    if request.constraint is not None:
        parameters["structured_outputs"] = {"structural_tag": structural_tag(request.constraint)}
    return parameters


def probe_request(what: str) -> Any:
    """`health` or `metrics`."""
    return infer_request("", {"probe": text(what.encode()), "return_error": flag(True)})


def infer_request(request_id: str, tensors: Mapping[str, tuple[int, bytes]]) -> Any:
    message = pb.ModelInferRequest(model_name=MODEL, id=request_id)
    for name, (size, raw) in tensors.items():
        message.inputs.add(name=name, datatype=INPUTS[name], shape=[size])
        message.raw_input_contents.append(raw)
    return message


def flag(value: bool) -> tuple[int, bytes]:
    return 1, b"\1" if value else b"\0"


def text(value: bytes) -> tuple[int, bytes]:
    return 1, struct.pack("<I", len(value)) + value


def parse_error(raw: Mapping[str, bytes]) -> WireError | None:
    """The structured error of a response, if it is one. `raw`: its raw_outputs."""
    return _decode_error(next(strings(raw["error"]))) if "error" in raw else None


def parse_probe(raw: Mapping[str, bytes]) -> str:
    """The answer to a probe. `raw`: raw_outputs of its response."""
    return next(strings(raw["probe_output"])).decode()


def parse_delta(raw: Mapping[str, bytes], request: GenerationRequest) -> GenerationDelta:
    """`raw`: raw_outputs of a response to `request` that is no error."""
    texts = list(strings(raw["text_output"]))
    finishes = [finish.decode() for finish in strings(raw["finish_reason"])]
    counts = struct.unpack(f"<{len(texts)}I", raw["num_output_tokens"])
    max_top = request.sampling.logprobs or 0
    logprobs = list(parse_logprobs(raw, counts, max_top)) if "logprobs" in raw else [None] * len(texts)
    choices = [
        ChoiceDelta(index, texts[index].decode(), counts[index], logprobs[index], FINISH_REASONS.get(finishes[index]))
        for index in range(len(texts))
        if counts[index] or texts[index] or finishes[index] in FINISH_REASONS
    ]
    return GenerationDelta(
        choices, struct.unpack("<I", raw["num_cached_tokens"])[0], parse_prompt_logprobs(raw, request)
    )


def parse_mail(raw: Mapping[str, bytes]) -> Iterator[tuple[str, GenerationDelta]]:
    """Deltas, each with the id of its request. `raw`: raw_outputs of a mailbox's response."""
    for request_id, num_cached_tokens, gained in _decode_mail(next(strings(raw["mail"]))):
        choices = [
            ChoiceDelta(index, text, tokens, None, FINISH_REASONS.get(finish)) for index, text, tokens, finish in gained
        ]
        yield request_id, GenerationDelta(choices, num_cached_tokens)


def parse_num_mailed(raw: Mapping[str, bytes]) -> int:
    """How many deltas have left by mail before this response."""
    return int(struct.unpack("<I", raw["num_mailed"])[0]) if "num_mailed" in raw else 0


def parse_logprobs(
    raw: Mapping[str, bytes], counts: Sequence[int], max_top: int
) -> Iterator[list[TokenLogprobs] | None]:
    ids = struct.unpack(f"<{len(raw['token_ids']) // 4}i", raw["token_ids"])
    start = 0
    for count, encoded in zip(counts, strings(raw["logprobs"]), strict=True):
        positions = _decode_logprobs(encoded)
        sampled = ids[start : start + count]
        start += count
        yield None if positions is None else [position(i, p, max_top) for i, p in zip(sampled, positions, strict=True)]


def parse_prompt_logprobs(raw: Mapping[str, bytes], request: GenerationRequest) -> list[TokenLogprobs] | None:
    positions = _decode_logprobs(next(strings(raw["prompt_logprobs"]))) if "prompt_logprobs" in raw else None
    if positions is None:
        return None
    max_top = request.sampling.prompt_logprobs or 0
    return [
        position(token_id, candidates, max_top) if candidates else TokenLogprobs(Candidate(token_id, math.nan), ())
        for token_id, candidates in zip(request.prompt_ids, positions, strict=True)
    ]


def position(sampled: int, candidates: Mapping[int, WireLogprob], max_top: int) -> TokenLogprobs:
    """The sampled token is told by its id, not by its rank: it need not be the most likely one."""
    ranked = sorted(candidates.items(), key=lambda item: -item[1].logprob)[:max_top]
    return TokenLogprobs(Candidate(sampled, candidates[sampled].logprob), [Candidate(i, c.logprob) for i, c in ranked])


def raw_outputs(response: Any) -> dict[str, bytes]:
    """The outputs of one ModelInferResponse by name."""
    return {output.name: raw for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)}


def strings(raw: bytes) -> Iterator[bytes]:
    """KServe's BYTES: each element is its length (u32, little endian) and its bytes."""
    offset = 0
    while offset < len(raw):
        (size,) = struct.unpack_from("<I", raw, offset)
        offset += 4
        yield raw[offset : offset + size]
        offset += size
