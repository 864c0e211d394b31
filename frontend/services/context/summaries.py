"""Between the turns: the next trim is made before a turn has to make it, what falls out is summarised, and the new beginning
is put into the engine's prefix cache. Nobody waits for any of it, and nothing is lost if it fails.

When the beginning of the prompts changes, and when not:

- A turn that does not fit moves `Trim.upto`, and nothing else: nobody can wait for a summary then. The old one stays.
- What is made here moves `upto` too, ahead of need, and in the same write replaces the summary by one that goes on from the
  old one: also of what turns have left out since `summarised_upto`.
- Nothing else changes either of them. So the beginning changes once with each trim, and a summary is frozen between two.

It takes two steps, because a summary takes longest (trimming.Shares). It is written when history comes near the end of its
room, of what the next trim will leave out, and waits in this process. When the time for the trim has come the engine reads
the new beginning, and then trim and summary are stored, by a compare-and-set on the trim: no turn finds the beginning cold,
and a turn that trimmed meanwhile wins. A summary that was overtaken so goes into the next trim, which comes sooner.

Simulated in a window of 8k tokens, 400 tokens a turn, 8 turns while a summary is written: turns have to trim for themselves
in 65 of 600 turns, and 9 exchanges are in no summary on average. In one step, without keeping what was overtaken: 94 and 186.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
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
from frontend.observability import tracing
from frontend.services.context import trimming
from frontend.services.context.builder import ContextBuilder
from frontend.services.context.summary_writer import STEP_TOKENS, SummaryWriter
from frontend.services.context.windows import load_window
from frontend.services.generate import Generator
from frontend.services.limits.gate import Gate
from frontend.services.models import Model
from frontend.services.tokenize import Tokenizer

log = structlog.get_logger("hermes2.summaries")
TRIMS = Counter("hermes2_background_trims", "Work on the next trim between turns, by how it ended.", ["outcome"])
Outcome = Literal["trimmed", "written", "not_due", "lost", "gone", "failed"]
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
    """Empty if the model said nothing."""

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
        gate: Gate,
        step_tokens: int = STEP_TOKENS,
        *,
        remember: Callable[[str, str], None] = lambda tenant, conversation_id: None,
    ) -> None:
        """`remember`: called with a conversation whose trim was moved here; returns at once."""
        self._database = database
        self._hot_state = hot_state
        self._builder = builder
        self._limits = builder.limits
        self._remember = remember
        self._writer = SummaryWriter(
            database,
            tokenizer,
            generator,
            gate,
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
        shares = self._shares(task, context.trim)
        nothing_to_write = not self._summarises(task) or self._written_for(key, context.trim) is not None
        if context.fill(answer_tokens) < (shares.cut if nothing_to_write else shares.write):
            return
        lasting = msgspec.structs.replace(task, pinned=(), history=(), input=(), memory=(), retrieval=())
        job = Job(tenant=tenant, conversation_id=conversation_id, model=model, task=lasting)
        self._tasks[key] = asyncio.create_task(self._run(job), context=tracing.outside())
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
        wrote = await self._write(job)
        window = await self._window(job)
        task = of_window(job.task, window)
        shares = self._shares(task, task.trim)
        outlook = await self._builder.outlook(task, shares.cut)
        if not task.switches.trim or outlook.fill < shares.cut or outlook.trim == task.trim:
            return "written" if wrote else "not_due"
        after = self._next_trim(job, task, outlook.trim)
        context = await self._builder.build(msgspec.structs.replace(task, trim=after))
        await self._writer.read(job.tenant, job.model, context.prompt_ids[: context.prefix_tokens])
        async with self._database.writing() as uow:
            if not await uow.conversations.set_trim(job.tenant, job.conversation_id, task.trim, after):
                return "lost"
        self._written.pop(job.key, None)
        self._remember(job.tenant, job.conversation_id)
        return "trimmed"

    async def _write(self, job: Job) -> bool:
        """Whether there was a summary to be written."""
        window = await self._window(job)
        task = of_window(job.task, window)
        shares = self._shares(task, task.trim)
        if not self._summarises(task) or self._written_for(job.key, task.trim) is not None:
            return False
        outlook = await self._builder.outlook(task, shares.cut)
        if outlook.fill < shares.write or outlook.trim == task.trim:
            return False
        text = await self._writer.write(job.tenant, job.model, window, outlook.trim)
        self._keep(job.key, Summary(task.trim, outlook.trim.upto, text))
        return True

    def _next_trim(self, job: Job, task: ContextTask, planned: Trim) -> Trim:
        """Where the summary ends, if there is one; where it should be, if that was overtaken by a turn's own trim."""
        written = self._written_for(job.key, task.trim) if self._summarises(task) else None
        if written is None:
            return planned
        upto = written.upto if written.before == task.trim else max(planned.upto, written.upto)
        if not written.text:
            return msgspec.structs.replace(planned, upto=upto)
        return Trim(upto=upto, summary=written.text, summarised_upto=written.upto)

    def _keep(self, key: tuple[str, str], summary: Summary) -> None:
        self._written[key] = summary
        if len(self._written) > MOST_WRITTEN:
            self._written.pop(next(iter(self._written)))

    async def _window(self, job: Job) -> Window:
        async with self._database.reading() as uow:
            conversation = await uow.conversations.get(job.tenant, job.conversation_id)
            return await load_window(uow, self._hot_state, job.tenant, conversation)

    def _summarises(self, task: ContextTask) -> bool:
        return task.switches.trim and task.switches.summary and self._limits.summary_tokens > 0

    def _shares(self, task: ContextTask, trim: Trim) -> trimming.Shares:
        unsummarised = self._summarises(task) and trim.summarised_upto < trim.upto
        return trimming.shares(self._limits, unsummarised=unsummarised)

    def _written_for(self, key: tuple[str, str], trim: Trim) -> Summary | None:
        written = self._written.get(key)
        return written if written is not None and written.follows(trim) else None


def of_window(task: ContextTask, window: Window) -> ContextTask:
    """The task of a turn that says nothing yet."""
    return msgspec.structs.replace(
        task,
        switches=window.conversation.context,
        trim=window.conversation.trim,
        pinned=window.pinned,
        history=window.history,
    )
