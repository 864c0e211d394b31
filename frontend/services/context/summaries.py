"""Between the turns: the next trim is made before a turn has to make it, what falls out is summarised, and the new beginning
is put into the engine's prefix cache. Nobody waits for any of it, and nothing is lost if it fails.

When the beginning of the prompts changes, and when not:

- A turn that does not fit moves `Trim.upto`, and nothing else: nobody can wait for a summary then. The old one stays.
- What is made here moves `upto` too, ahead of need, and in the same write replaces the summary by one of all that is left
  out, as far as the new `upto`: also of what turns have left out since `summarised_upto`.
- Nothing else changes either of them. So the beginning changes once with each trim, and a summary is frozen between two.

The engine reads the new beginning before the trim is stored, so no turn finds it cold; turns go on with the old one until
then. The write is a compare-and-set on the trim. A turn that trimmed meanwhile wins; the summary that came too late is kept in
this process, and takes effect with the next trim, which is then made as soon as there is something to cut. Without that a
conversation in a hurry would never get one: 8 turns of 400 tokens while a summary is made, and 186 exchanges on average
would be in none; so they are 10 (simulated, window of 8k tokens).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
import structlog
from prometheus_client import Counter

from frontend.domain.context import Context, ContextTask
from frontend.domain.conversations import Trim, Window
from frontend.domain.errors import NotFound, ServiceError
from frontend.domain.ports import HotState
from frontend.domain.storage import Database
from frontend.services.context import trimming
from frontend.services.context.builder import ContextBuilder
from frontend.services.context.summary_writer import STEP_TOKENS, SummaryWriter
from frontend.services.context.windows import load_window
from frontend.services.generate import Generator
from frontend.services.models import Model
from frontend.services.tokenize import Tokenizer

log = structlog.get_logger("hermes2.summaries")
TRIMS = Counter("hermes2_background_trims", "Trims begun between turns, by how they ended.", ["outcome"])
Outcome = Literal["trimmed", "not_due", "lost", "gone", "failed"]
MOST_WAITING = 64
"""Conversations that wait for their place; the next turn of any other asks again."""
MOST_WRITTEN = 256
"""Summaries that wait for a trim; one that is dropped is written again."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    tenant: str
    conversation_id: str
    model: Model
    task: ContextTask
    """Of the turn that has ended: its prompt's beginning is that of the next one."""

    @property
    def key(self) -> tuple[str, str]:
        return self.tenant, self.conversation_id


class Summary(msgspec.Struct, frozen=True):
    before: Trim
    """The trim for which it was written."""
    upto: int
    """The last item that is in it."""
    text: str

    def follows(self, trim: Trim) -> bool:
        """Whether it goes on from the summary of `trim`."""
        return (self.before.summary, self.before.summarised_upto) == (trim.summary, trim.summarised_upto)


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
        self._writer = SummaryWriter(
            database,
            tokenizer,
            generator,
            summary_tokens=builder.limits.summary_tokens,
            step_tokens=step_tokens,
        )
        self._places = asyncio.Semaphore(self._limits.background)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._written: dict[tuple[str, str], Summary] = {}
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
        if context.fill(answer_tokens) < self._due_share(key, task, context.trim):
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
                self._written.pop(job.key, None)
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
        after = await self._builder.ahead(task, self._due_share(job.key, task, task.trim))
        if after is None:
            return "not_due"
        summary = await self._summary(job, window, after) if self._summarises(task) else None
        if summary is not None:
            self._keep(job.key, summary)
            upto = max(after.upto, summary.upto)
            after = Trim(upto=upto, summary=summary.text, summarised_upto=summary.upto)
        if not await self._begin_there(job, task, after):
            return "lost"
        self._written.pop(job.key, None)
        return "trimmed"

    async def _begin_there(self, job: Job, task: ContextTask, after: Trim) -> bool:
        """False if the trim is not the task's any more."""
        window = await self._window(job)
        if window.conversation.trim != task.trim:
            return False
        context = await self._builder.build(msgspec.structs.replace(of_window(task, window), trim=after))
        await self._writer.read(job.tenant, job.model, context.prompt_ids[: context.prefix_tokens])
        async with self._database.writing() as uow:
            return bool(await uow.conversations.set_trim(job.tenant, job.conversation_id, task.trim, after))

    def _keep(self, key: tuple[str, str], summary: Summary) -> None:
        self._written[key] = summary
        if len(self._written) > MOST_WRITTEN:
            self._written.pop(next(iter(self._written)))

    async def _window(self, job: Job) -> Window:
        async with self._database.reading() as uow:
            conversation = await uow.conversations.get(job.tenant, job.conversation_id)
            return await load_window(uow, self._hot_state, job.tenant, conversation)

    def _summarises(self, task: ContextTask) -> bool:
        return task.switches.summary and self._limits.summary_tokens > 0

    def _due_share(self, key: tuple[str, str], task: ContextTask, trim: Trim) -> float:
        written = self._written.get(key)
        return trimming.due_share(
            self._limits,
            unsummarised=self._summarises(task) and trim.summarised_upto < trim.upto,
            written=written is not None and written.follows(trim),
        )

    async def _summary(self, job: Job, window: Window, after: Trim) -> Summary | None:
        """The one that came too late for the trim before, or a new one. None if the model says nothing."""
        before = window.conversation.trim
        written = self._written.get(job.key)
        if written is not None and written.follows(before):
            return written
        text = await self._writer.write(job.tenant, job.model, window, after)
        return Summary(before, after.upto, text) if text else None


def of_window(task: ContextTask, window: Window) -> ContextTask:
    """The task of a turn that says nothing yet."""
    return msgspec.structs.replace(
        task,
        switches=window.conversation.context,
        trim=window.conversation.trim,
        pinned=window.pinned,
        history=window.history,
    )
