"""Plain completions: texts or token ids in, their continuations out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from frontend.domain.generation import ChoiceDelta, GenerationDelta, Sampling, TokenLogprobs
from frontend.domain.principal import Principal
from frontend.services.generate import Generator, Reply
from frontend.services.limits.gate import Gate
from frontend.services.models import Model, ModelService
from frontend.services.together import together
from frontend.services.tokenize import Tokenizer

DEFAULT_MAX_TOKENS = 16
"""What OpenAI documents for this route."""

Prompt = str | list[int]


class CompletionTask(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    prompts: Sequence[Prompt]
    sampling: Sampling
    stream: bool
    echo: bool
    """Each choice begins with its prompt, its log probabilities with those of the prompt."""


class CompletionService:
    def __init__(self, models: ModelService, tokenizer: Tokenizer, generator: Generator, gate: Gate) -> None:
        self._models = models
        self._tokenizer = tokenizer
        self._generator = generator
        self._gate = gate

    async def open(self, task: CompletionTask, principal: Principal, traceparent: str | None) -> Reply:
        """The choices of prompt i are those from i x n on. Raises ModelNotFound, InvalidRequest, ContextLengthExceeded.

        The first delta raises what the gate does.
        """
        model = self._models.get(task.model)
        replies = []
        for prompt in task.prompts:
            replies.append(await self._open_one(task, prompt, model, principal, traceparent))
            await asyncio.sleep(0)  # short prompts are tokenised on the event loop: others get their turn in between
        return self._gate.through(self._one(replies, task.sampling.n), principal)

    def _one(self, replies: Sequence[Reply], n: int) -> Reply:
        """All of them; the engine has as many of their choices at a time as it may."""
        if len(replies) == 1:
            return replies[0]
        at_once = max(1, self._gate.widest // n)
        return Reply(
            model=replies[0].model,
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            n=sum(reply.n for reply in replies),
            most_tokens=sum(reply.most_tokens for reply in replies),
            deltas=together([reply.deltas for reply in replies], n, at_once),
        )

    async def _open_one(
        self, task: CompletionTask, prompt: Prompt, model: Model, principal: Principal, traceparent: str | None
    ) -> Reply:
        silent = task.sampling.max_tokens == 0
        sampling = task.sampling
        if silent:  # the engine writes one token at least; nobody sees it
            sampling = msgspec.structs.replace(sampling, max_tokens=1)
        if task.echo:
            sampling = msgspec.structs.replace(sampling, prompt_logprobs=sampling.logprobs)
        reply = self._generator.open(
            model,
            await self._tokenizer.raw(prompt),
            sampling,
            default_max_tokens=DEFAULT_MAX_TOKENS,
            prompt_param="prompt",
            stream=task.stream,
            principal=principal,
            traceparent=traceparent,
        )
        deltas = muted(reply.deltas) if silent else reply.deltas
        if task.echo:
            text = prompt if isinstance(prompt, str) else self._tokenizer.text(prompt)
            deltas = echoed(deltas, text, self._tokenizer.raw_prefix if isinstance(prompt, str) else 0)
        return msgspec.structs.replace(reply, deltas=deltas)


async def muted(deltas: AsyncGenerator[GenerationDelta, None]) -> AsyncGenerator[GenerationDelta, None]:
    """The same generation without what was generated."""
    async with aclosing(deltas):
        async for delta in deltas:
            choices = [ChoiceDelta(c.index, "", 0, None if c.logprobs is None else [], "length") for c in delta.choices]
            yield msgspec.structs.replace(delta, choices=choices)


async def echoed(
    deltas: AsyncGenerator[GenerationDelta, None], prompt: str, unsaid: int
) -> AsyncGenerator[GenerationDelta, None]:
    """The same generation with the prompt in front of every choice; its first `unsaid` tokens are not of its text."""
    begun: set[int] = set()
    of_prompt: Sequence[TokenLogprobs] = ()
    async with aclosing(deltas):
        async for delta in deltas:
            of_prompt = (delta.prompt_logprobs or ())[unsaid:] or of_prompt
            choices = [c if c.index in begun else with_prompt(c, prompt, of_prompt) for c in delta.choices]
            begun.update(choice.index for choice in choices)
            yield msgspec.structs.replace(delta, choices=choices)


def with_prompt(choice: ChoiceDelta, prompt: str, of_prompt: Sequence[TokenLogprobs]) -> ChoiceDelta:
    logprobs = None if choice.logprobs is None else [*of_prompt, *choice.logprobs]
    return msgspec.structs.replace(choice, text=prompt + choice.text, logprobs=logprobs)
