"""Between the turns: the next trim is made before a turn has to make it, what falls out is summarised, and the new beginning
is put into the engine's prefix cache. Nobody waits for any of it, and nothing is lost if it fails.

When the beginning of the prompts changes, and when not:

- A turn that does not fit moves `Trim.upto`, and nothing else: nobody can wait for a summary then. The old one stays.
- What is made here moves `upto` too, ahead of need, and in the same write replaces the summary by one of all that is left
  out, as far as the new `upto`: also of what turns have left out since `summarised_upto`.
- Nothing else changes either of them. So the beginning changes once with each trim, a summary is frozen between two, and
  one is never written for its own sake. If turns have left something out, the next trim here comes as soon as history
  fills more than a trim leaves, instead of when its room is nearly full.

The engine reads the new beginning before the trim is stored, so no turn finds it cold; turns go on with the old one until
then. The write is a compare-and-set on the trim: what came too late is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Literal

import msgspec
import structlog
from prometheus_client import Counter

from frontend.domain.context import Context, ContextTask
from frontend.domain.conversations import PageRequest, Trim, Window
from frontend.domain.errors import NotFound, ServiceError
from frontend.domain.generation import Sampling
from frontend.domain.items import Item
from frontend.domain.ports import HotState
from frontend.domain.principal import Principal
from frontend.domain.storage import Database
from frontend.services.context import trimming
from frontend.services.context.builder import ContextBuilder
from frontend.services.context.summary_prompt import summary_prompt
from frontend.services.context.windows import load_window
from frontend.services.generate import Generator
from frontend.services.models import Model
from frontend.services.tokenize import Tokenizer

log = structlog.get_logger("hermes2.summaries")
TRIMS = Counter("hermes2_background_trims", "Trims begun between turns, by how they ended.", ["outcome"])
Outcome = Literal["trimmed", "not_due", "lost", "gone", "failed"]
MOST_WAITING = 64
"""Conversations that wait for their place; the next turn of any other asks again."""
SHARE_OF_WINDOW = 8
"""A summary has this part of the window at most, whatever the settings say."""
STEP_TOKENS = 512
"""So much of a prompt is read at once: while the engine reads, no stream goes on. The 2,048 tokens that vLLM takes at once
stalled them for 5 s on two busy cores, and once for so long that the engine was taken for dead."""
PAGE = 50
"""Items that are read at a time, newest first, until the window is full."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    conversation_id: str
    model: Model
    task: ContextTask
    """Of the turn that has ended: its prompt's beginning is that of the next one."""


class Said(msgspec.Struct, frozen=True):
    text: str
    cached_tokens: int


class SummaryService:
    def __init__(
        self,
        database: Database,
        hot_state: HotState,
        builder: ContextBuilder,
        tokenizer: Tokenizer,
        generator: Generator,
        step_tokens: int = STEP_TOKENS,
    ) -> None:
        self._database = database
        self._hot_state = hot_state
        self._builder = builder
        self._limits = builder.limits
        self._tokenizer = tokenizer
        self._generator = generator
        self._step_tokens = step_tokens
        self._places = asyncio.Semaphore(self._limits.background)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._closed = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ends what is under way on the way out; a summary that is not stored by then never was."""
        try:
            yield
        finally:
            self._closed = True
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def after_turn(
        self,
        tenant: str,
        conversation_id: str,
        *,
        model: Model,
        task: ContextTask,
        context: Context,
        answer_tokens: int,
    ) -> None:
        """To be called when a turn of a conversation is stored; `context` is what came of `task`. Returns at once."""
        key = tenant, conversation_id
        full = len(self._tasks) >= self._limits.background + MOST_WAITING
        if self._closed or not self._limits.background or not task.switches.trim or key in self._tasks or full:
            return
        if not trimming.is_due(context.fill(answer_tokens), self._unsummarised(task, context.trim), self._limits):
            return
        lasting = msgspec.structs.replace(task, pinned=(), history=(), input=(), memory=(), retrieval=())
        job = Job(tenant=tenant, conversation_id=conversation_id, model=model, task=lasting)
        self._tasks[key] = asyncio.create_task(self._run(job))
        self._tasks[key].add_done_callback(lambda _: self._tasks.pop(key))

    async def _run(self, job: Job) -> None:
        async with self._places:
            outcome: Outcome
            try:
                outcome = await self._trim(job)
            except NotFound:
                outcome = "gone"
            except ServiceError as exc:
                outcome = "failed"
                log.warning("background_trim_failed", conversation=job.conversation_id, error=exc.code)
            except Exception as exc:
                outcome = "failed"
                log.error("background_trim_failed", conversation=job.conversation_id, exc_info=exc)
            TRIMS.labels(outcome).inc()

    async def _trim(self, job: Job) -> Outcome:
        window = await self._window(job)
        task = of_window(job.task, window)
        if not task.switches.trim:
            return "not_due"
        after = await self._builder.ahead(task, self._unsummarised(task, task.trim))
        if after is None:
            return "not_due"
        if self._summarises(task) and (summary := await self._summary(job, window, after)):
            after = msgspec.structs.replace(after, summary=summary, summarised_upto=after.upto)
        window = await self._window(job)
        if window.conversation.trim != task.trim:
            return "lost"
        await self._prefill(job, msgspec.structs.replace(of_window(task, window), trim=after))
        async with self._database.writing() as uow:
            stored = await uow.conversations.set_trim(job.tenant, job.conversation_id, task.trim, after)
        return "trimmed" if stored else "lost"

    async def _window(self, job: Job) -> Window:
        async with self._database.reading() as uow:
            conversation = await uow.conversations.get(job.tenant, job.conversation_id)
            return await load_window(uow, self._hot_state, job.tenant, conversation)

    def _summarises(self, task: ContextTask) -> bool:
        return task.switches.summary and self._limits.summary_tokens > 0

    def _unsummarised(self, task: ContextTask, trim: Trim) -> bool:
        return self._summarises(task) and trim.summarised_upto < trim.upto

    async def _summary(self, job: Job, window: Window, after: Trim) -> str:
        """Of the old summary and all that `after` leaves out behind it, as far as the window holds it; may be empty."""
        size = min(self._limits.summary_tokens, max(1, job.model.max_model_len // SHARE_OF_WINDOW))
        async with aclosing(self._left_out(job, window, after)) as blocks:
            prompt_ids = await summary_prompt(
                self._tokenizer,
                blocks,
                before=window.conversation.trim.summary,
                summary_tokens=size,
                most_tokens=job.model.max_model_len - size,
            )
        return (await self._generate(job, prompt_ids, size)).strip()

    async def _left_out(self, job: Job, window: Window, after: Trim) -> AsyncGenerator[Sequence[Item], None]:
        """Behind `summarised_upto` and up to the new trim, the newest first. What is pinned is not left out."""
        first = max([window.conversation.trim.summarised_upto, *(stored.seq for stored in window.pinned)])
        kept = next((stored.item.id for stored in window.history if stored.seq > after.upto), None)
        page = PageRequest(after=kept, limit=PAGE, order="desc")
        while True:
            async with self._database.reading() as uow:
                found = await uow.items.page(job.tenant, job.conversation_id, page)
            items = [stored.item for stored in found.data if first < stored.seq <= after.upto]
            if items:
                yield items
            if not found.has_more or found.data[-1].seq <= first:
                return
            page = msgspec.structs.replace(page, after=found.data[-1].item.id)

    async def _prefill(self, job: Job, task: ContextTask) -> None:
        """Has the engine read what the next prompt begins with; the token that it makes of it is nobody's."""
        context = await self._builder.build(task)
        if context.prefix_tokens:
            await self._generate(job, context.prompt_ids[: context.prefix_tokens], 1)

    async def _generate(self, job: Job, prompt_ids: Sequence[int], max_tokens: int) -> str:
        """A long prompt is read in steps before."""
        for end in range(self._step_tokens, len(prompt_ids), self._step_tokens):
            cached = (await self._ask(job, prompt_ids[:end], 1)).cached_tokens
            if end > self._step_tokens and not cached:
                break  # an engine without a cache, or with one that is full
        return (await self._ask(job, prompt_ids, max_tokens)).text

    async def _ask(self, job: Job, prompt_ids: Sequence[int], max_tokens: int) -> Said:
        """In the tenant's own part of the prefix cache."""
        reply = self._generator.open(
            job.model,
            prompt_ids,
            Sampling(max_tokens=max_tokens, temperature=0),
            default_max_tokens=None,
            prompt_param="conversation",
            stream=False,
            principal=Principal(key_id="", tenant=job.tenant, scopes=frozenset()),
            traceparent=None,
        )
        text, cached = "", 0
        async with aclosing(reply.deltas) as deltas:
            async for delta in deltas:
                text += "".join(choice.text for choice in delta.choices)
                cached = max(cached, delta.num_cached_tokens)
        return Said(text, cached)


def of_window(task: ContextTask, window: Window) -> ContextTask:
    """The task of a turn that says nothing yet."""
    return msgspec.structs.replace(
        task,
        switches=window.conversation.context,
        trim=window.conversation.trim,
        pinned=window.pinned,
        history=window.history,
    )
