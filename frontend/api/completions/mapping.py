"""Between the wire's completion and the domain's."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from frontend.api import generations
from frontend.api.completions import schema
from frontend.api.parameters import sampling, texts_or_ids
from frontend.domain.errors import InvalidRequest
from frontend.domain.generation import TokenLogprobs
from frontend.domain.hermes.encoder import Encoder
from frontend.http.replies import event
from frontend.services.completions import CompletionTask, Prompt
from frontend.services.generate import Reply

ASKS_FOR_NOTHING: dict[str, tuple[object, ...]] = {"suffix": ("",), "best_of": (1,)}
"""Parameters that are not supported, with the values that change nothing and are taken all the same."""


def to_domain(data: schema.CreateCompletion, max_n: int, max_prompts: int) -> CompletionTask:
    """Raises InvalidRequest, naming the parameter."""
    for name, harmless in ASKS_FOR_NOTHING.items():
        value = getattr(data, name)
        if value is not None and value not in harmless:
            raise InvalidRequest(
                f"'{name}' is not supported by this service.", param=name, code="unsupported_parameter"
            )
    return CompletionTask(
        model=data.model,
        prompts=prompts(data.prompt, max_prompts),
        sampling=sampling(data, max_tokens=data.max_tokens, logprobs=data.logprobs, max_n=max_n),
        stream=bool(data.stream),
        echo=bool(data.echo),
    )


def prompts(data: str | list[str | int | list[int]], max_prompts: int) -> Sequence[Prompt]:
    """Raises InvalidRequest."""
    several = texts_or_ids(data, "prompt", max_prompts)
    if not all(several):
        raise InvalidRequest("A prompt must not be empty.", param="prompt")
    return several


async def completion(reply: Reply, head: generations.Head, encoder: Encoder) -> schema.Completion:
    choices, usage = await generations.collect(reply)
    return schema.Completion(
        id=head.id,
        created=head.created,
        model=reply.model.root,
        choices=[schema.Choice(c.index, c.text, logprobs(c.logprobs, 0, encoder), c.finish_reason) for c in choices],
        usage=generations.usage_body(usage),
    )


async def frames(
    reply: Reply, head: generations.Head, encoder: Encoder, with_usage: bool
) -> AsyncGenerator[bytes, None]:
    """One SSE frame a chunk; then the usage, if asked for."""
    usage: msgspec.UnsetType | None = None if with_usage else msgspec.UNSET
    tally = generations.Tally(reply.prompt_tokens)
    offsets = [0] * reply.n
    async with aclosing(reply.deltas) as deltas:
        async for delta in deltas:
            for choice in delta.choices:
                tally.add(choice, delta.num_cached_tokens)
                body = schema.Choice(
                    choice.index,
                    choice.text,
                    logprobs(choice.logprobs, offsets[choice.index], encoder),
                    choice.finish_reason,
                )
                offsets[choice.index] += len(choice.text)
                yield event(
                    schema.Completion(
                        id=head.id, created=head.created, model=reply.model.root, choices=[body], usage=usage
                    )
                )
    if with_usage:
        last = generations.usage_body(tally.usage)
        yield event(schema.Completion(id=head.id, created=head.created, model=reply.model.root, choices=[], usage=last))


def logprobs(positions: Sequence[TokenLogprobs] | None, offset: int, encoder: Encoder) -> schema.Logprobs | None:
    """`offset`: characters of the answer before these positions."""
    if positions is None:
        return None
    result = schema.Logprobs([], [], [], [])
    for position in positions:
        token, logprob = generations.shown(encoder.token_bytes(position.sampled.token_id)), position.sampled.logprob
        candidates = {generations.shown(encoder.token_bytes(c.token_id)): c.logprob for c in position.top}
        result.text_offset.append(offset)
        result.tokens.append(token)
        known = not math.isnan(logprob)
        result.token_logprobs.append(logprob if known else 0.0)
        result.top_logprobs.append(candidates | {token: logprob} if known else {})
        offset += len(token)
    return result
