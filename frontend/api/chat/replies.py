"""From a running reply to what answers the request: one completion, or chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing

import msgspec

from frontend.api import generations
from frontend.api.chat import schema, tools
from frontend.api.chat.stored import Keep
from frontend.api.items.mapping import citations
from frontend.api.logprobs import token_logprob
from frontend.domain.generation import ChoiceDelta, GenerationDelta, TokenLogprobs
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.responses import Degraded
from frontend.http.replies import event
from frontend.services.chat_run import ConversationReply
from frontend.services.generate import Reply


class Gathering:
    """A reply as it comes, and the completion that it makes."""

    def __init__(self, reply: Reply | ConversationReply, head: generations.Head, encoder: Encoder) -> None:
        self._reply = reply
        self._head = head
        self._encoder = encoder
        self._parts: list[list[ChoiceDelta]] = [[] for _ in range(reply.n)]
        self._cached_tokens = 0

    def add(self, delta: GenerationDelta) -> None:
        self._cached_tokens = max(self._cached_tokens, delta.num_cached_tokens)
        for choice in delta.choices:
            self._parts[choice.index].append(choice)

    @property
    def is_whole(self) -> bool:
        return all(parts and parts[-1].finish_reason for parts in self._parts)

    def completion(self, keep: Keep | None) -> schema.ChatCompletion:
        """Raises Internal if it is not whole."""
        choices = [generations.whole(index, parts) for index, parts in enumerate(self._parts)]
        tally = generations.Tally(self._reply.prompt_tokens)
        for part in (part for parts in self._parts for part in parts):
            tally.add(part, self._cached_tokens)
        return schema.ChatCompletion(
            id=self._head.id,
            created=self._head.created,
            model=self._reply.model.root,
            choices=[
                schema.Choice(c.index, answer(c), logprobs(c.logprobs, self._encoder), c.finish_reason) for c in choices
            ],
            usage=generations.usage_body(tally.usage),
            metadata=msgspec.UNSET if keep is None else keep.metadata,
            degraded=list(self._reply.degraded) or msgspec.UNSET,
        )


async def completion(
    reply: Reply | ConversationReply, head: generations.Head, encoder: Encoder, keep: Keep | None
) -> schema.ChatCompletion:
    gathering = Gathering(reply, head, encoder)
    async with aclosing(reply.deltas) as deltas:
        async for delta in deltas:
            gathering.add(delta)
    body = gathering.completion(keep)
    if keep is not None:
        await keep(body)
    return body


def answer(choice: generations.Collected) -> schema.AnswerMessage:
    cited = citations(choice.citations) or msgspec.UNSET
    if not choice.calls:
        return schema.AnswerMessage(choice.text, file_citations=cited)
    calls = [schema.FunctionCall(call.id, schema.CalledFunction(call.name, call.arguments)) for call in choice.calls]
    return schema.AnswerMessage(choice.text or None, tool_calls=calls, file_citations=cited)


async def frames(
    reply: Reply | ConversationReply,
    head: generations.Head,
    encoder: Encoder,
    with_usage: bool,
    keep: Keep | None,
) -> AsyncGenerator[bytes, None]:
    """One SSE frame a chunk: for each choice its role first, its finish_reason last; then the usage, if asked for.
    Those of one delta are given together, to be sent at once.

    A completion that is to be kept is kept before the last finish_reason is told.
    """
    usage: msgspec.UnsetType | None = None if with_usage else msgspec.UNSET

    def frame(choices: list[schema.ChunkChoice], degraded: list[Degraded] | msgspec.UnsetType = msgspec.UNSET) -> bytes:
        return event(
            schema.ChatCompletionChunk(
                id=head.id,
                created=head.created,
                model=reply.model.root,
                choices=choices,
                usage=usage,
                degraded=degraded,
            )
        )

    gathering = Gathering(reply, head, encoder)
    tally: generations.Tally | None = None
    async with aclosing(reply.deltas) as deltas:
        async for delta in deltas:
            if keep is not None:
                gathering.add(delta)
                if gathering.is_whole:
                    await keep(gathering.completion(keep))
            told = []
            if tally is None:
                tally = generations.Tally(reply.prompt_tokens)
                for index in range(reply.n):
                    begun = schema.ChunkChoice(index, schema.Delta(role="assistant", content=""))
                    told.append(frame([begun], list(reply.degraded) or msgspec.UNSET))
            for choice in delta.choices:
                tally.add(choice, delta.num_cached_tokens)
                told += [frame([chunk]) for chunk in chunks(choice, encoder)]
            if told:
                yield b"".join(told)
    if with_usage and tally is not None:
        yield event(
            schema.ChatCompletionChunk(
                id=head.id,
                created=head.created,
                model=reply.model.root,
                choices=[],
                usage=generations.usage_body(tally.usage),
            )
        )


def chunks(choice: ChoiceDelta, encoder: Encoder) -> Iterator[schema.ChunkChoice]:
    if choice.text or choice.logprobs:
        content = schema.Delta(content=choice.text)
        yield schema.ChunkChoice(choice.index, content, logprobs(choice.logprobs, encoder))
    if choice.calls:
        calls = schema.Delta(tool_calls=[tools.delta(call) for call in choice.calls])
        yield schema.ChunkChoice(choice.index, calls)
    if choice.finish_reason:
        last = schema.Delta(file_citations=citations(choice.citations) or None)
        yield schema.ChunkChoice(choice.index, last, None, choice.finish_reason)


def logprobs(positions: Iterable[TokenLogprobs] | None, encoder: Encoder) -> schema.ChoiceLogprobs | None:
    if positions is None:
        return None
    return schema.ChoiceLogprobs([token_logprob(position, encoder) for position in positions])
