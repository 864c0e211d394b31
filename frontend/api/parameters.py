"""The parameters that chat and plain completions share, as they come over the wire, and their way into the domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeGuard

import msgspec
from msgspec import Meta

from frontend.domain.errors import InvalidRequest
from frontend.domain.generation import Sampling

Mixed = list[str | int | list[int]]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
MOST_STOP_BYTES = 64
StopText = Annotated[str, Meta(min_length=1, max_length=MOST_STOP_BYTES)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]
LogitBias = Annotated[
    dict[Annotated[str, Meta(pattern=r"^[0-9]{1,9}$(?!\n)")], Annotated[float, Meta(ge=-100, le=100)]],
    Meta(max_length=300),
]


SEEDS = 2**62
"""Seeds are folded into so many: the engine adds a choice's number to them, and takes -1 for none."""


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    """Accepted and ignored: there is no padding here."""


class TokenChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How tokens are chosen, in every way of generating: OpenAI's names, and vLLM's for what OpenAI lacks."""

    model: str
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    user: Annotated[str, Meta(max_length=512)] | None = None


class SamplingParameters(TokenChoice, frozen=True, kw_only=True):
    """What chats and plain completions have beside that."""

    max_tokens: Count | None = None
    min_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    stop_token_ids: Annotated[list[Annotated[int, Meta(ge=0, le=2**31 - 1)]], Meta(max_length=64)] | None = None
    ignore_eos: bool | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=4)] | None = None
    n: Annotated[int, Meta(ge=1)] | None = None
    logit_bias: LogitBias | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage_chunk(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


def sampling(data: SamplingParameters, *, max_tokens: int | None, logprobs: int | None, max_n: int) -> Sampling:
    """The domain's sampling; what was not sent stays unset. Raises InvalidRequest for what contradicts itself."""
    n = data.n or 1
    if n > max_n:
        raise InvalidRequest(
            f"Invalid value for 'n': at most {max_n} choices are generated, {n} were asked for.", param="n"
        )
    if data.stream_options is not None and not data.stream:
        raise InvalidRequest("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
    stop = [data.stop] if isinstance(data.stop, str) else data.stop or []
    if any(len(each.encode()) > MOST_STOP_BYTES for each in stop):
        raise InvalidRequest(f"Invalid value for 'stop': at most {MOST_STOP_BYTES} bytes of UTF-8 each.", param="stop")
    return msgspec.structs.replace(
        token_choice(data),
        max_tokens=max_tokens,
        n=n,
        min_tokens=data.min_tokens,
        stop=stop,
        stop_token_ids=data.stop_token_ids or [],
        ignore_eos=bool(data.ignore_eos),
        logit_bias={int(token): bias for token, bias in data.logit_bias.items()} if data.logit_bias else None,
        logprobs=logprobs,
    )


def token_choice(data: TokenChoice) -> Sampling:
    """The same of what every way of generating has."""
    return Sampling(
        temperature=data.temperature,
        top_p=data.top_p,
        top_k=data.top_k,
        min_p=data.min_p,
        seed=None if data.seed is None else data.seed % SEEDS,
        presence_penalty=data.presence_penalty,
        frequency_penalty=data.frequency_penalty,
        repetition_penalty=data.repetition_penalty,
    )


def refuse_unsupported(data: msgspec.Struct, asks_for_nothing: Mapping[str, tuple[object, ...]]) -> None:
    """`asks_for_nothing`: fields that are not supported, and their values that change nothing. Raises InvalidRequest."""
    for name, harmless in asks_for_nothing.items():
        value = getattr(data, name)
        if value is not None and value not in harmless:
            raise InvalidRequest(
                f"'{name}' is not supported by this service.", param=name, code="unsupported_parameter"
            )


def texts_or_ids(value: str | Mixed, param: str, most: int) -> list[str] | list[list[int]]:
    """A text, the token ids of one, or a list of either, as the list that it stands for. Raises InvalidRequest."""
    if isinstance(value, str):
        return [value]
    if all_ids(value):
        return [value]
    if not (all_texts(value) or all_lists(value)):
        raise InvalidRequest(
            f"Invalid value for '{param}': texts, token ids and lists of token ids cannot be mixed.", param=param
        )
    if len(value) > most:
        raise InvalidRequest(f"Invalid value for '{param}': at most {most} are taken, not {len(value)}.", param=param)
    return value


def all_ids(values: Mixed) -> TypeGuard[list[int]]:
    return all(isinstance(value, int) for value in values)


def all_texts(values: Mixed) -> TypeGuard[list[str]]:
    return all(isinstance(value, str) for value in values)


def all_lists(values: Mixed) -> TypeGuard[list[list[int]]]:
    return all(isinstance(value, list) for value in values)


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class PromptTokensDetails(msgspec.Struct, frozen=True):
    cached_tokens: int
    """Tokens of the prompt whose work the engine had kept from earlier requests."""
    audio_tokens: int = 0


class UsageBody(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails = CompletionTokensDetails()


FinishReason = Literal["stop", "length", "tool_calls"]
