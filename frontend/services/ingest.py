"""Files on their way into vector stores: durable jobs, each worked on by one process at a time, until it has an end.

A job is a row. Who has claimed it renews its lease, and publishes all chunks of the file in one transaction, or fails it
with a reason. What is nobody's fault (the embedder is away, this process ends) gives it back, to be begun anew. A process
that is killed leaves its jobs to others: at once on the same machine, after `lease_s` elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

import structlog
from prometheus_client import Counter

from frontend.domain.documents import IngestError, IngestErrorCode, IngestJob, NewChunk
from frontend.domain.errors import NotFound, ParseFailed, ServiceError, Timeout, Unavailable
from frontend.domain.ports import Parser
from frontend.domain.storage import Database
from frontend.services.embeddings import EmbeddingService
from frontend.services.file_chunks import STAGES, FileChunks, Gone
from frontend.services.process import is_dead, this_process
from frontend.settings import RetrievalSettings

T = TypeVar("T")

log = structlog.get_logger("hermes2.ingest")
FILES = Counter("hermes2_ingest_files", "Files that left the queue of a process, by how.", ["outcome"])
RENEWALS_PER_LEASE = 3
POLL_S = 2.0
"""How often it looks for jobs that another process was given."""
PUBLISH_TRIES = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Before the next claim, when what all files need is away."""


class IngestService:
    def __init__(
        self,
        database: Database,
        embeddings: EmbeddingService,
        parser: Parser,
        settings: RetrievalSettings,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        owner: str | None = None,
    ) -> None:
        self._database = database
        self._embeddings = embeddings
        self._chunks = FileChunks(database, embeddings, parser, sleep)
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._owner = owner or this_process()
        self._work: dict[asyncio.Task[None], IngestJob] = {}
        self._unreleased: list[IngestJob] = []
        """Given back while the database was away: it is told when it returns."""
        self._lost_claim = False
        """The answer to a claim was lost: there may be jobs in our name that nobody works on."""
        self._look = asyncio.Event()
        self._pause_s = 0.0
        self._not_before = 0.0
        """No claim until then, in the event loop's time."""

    def wake(self) -> None:
        """There is a new job."""
        self._look.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Works on jobs, `workers` at a time. On the way out what has begun is given back, in a second or so."""
        stop = asyncio.Event()
        loops = [asyncio.create_task(self._keep(stop)), asyncio.create_task(self._dispatch(stop))]
        try:
            yield
        finally:
            stop.set()
            self.wake()
            await asyncio.wait(loops)
            if work := list(self._work):
                for task in work:
                    task.cancel()
                await asyncio.wait(work)
            await self._release_rest()

    async def _dispatch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._look.clear()
            pause_s = self._not_before - asyncio.get_running_loop().time()
            try:
                if pause_s <= 0:
                    await self._fill()
            except ServiceError as exc:
                self._lost_claim = True
                log.warning("ingest_jobs_not_claimed", error=exc.code)
            except Exception as exc:  # a defect must not end the rounds
                log.error("ingest_jobs_not_claimed", exc_info=exc)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    stop.wait() if pause_s > 0 else self._look.wait(), pause_s if pause_s > 0 else POLL_S
                )

    async def _fill(self) -> None:
        """Claims as many jobs as there are free places. Raises Unavailable."""
        free = self._settings.workers - len(self._work)
        if free <= 0:
            return
        if self._lost_claim and not self._work:
            await self._release_all(self._owner)
            self._lost_claim = False
        now = self._clock()
        async with self._database.writing() as uow:
            jobs = await uow.store_files.claim(self._owner, now, now + self._settings.lease_s, free)
        for job in jobs:
            task = asyncio.create_task(self._run(job))
            self._work[task] = job
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._work.pop(task)
        if task.cancelled():  # before it had begun
            self._unreleased.append(job)
        elif (error := task.exception()) is not None:
            log.error("ingest_broken", file=job.file.id, store=job.store_id, exc_info=error)
            self._unreleased.append(job)
        self.wake()

    async def _run(self, job: IngestJob) -> None:
        """The job, to one of its ends."""
        outcome = "released"
        started = time.monotonic()
        try:
            outcome = await self._ingest(job)
        except (Gone, NotFound):
            outcome = "gone"
        except ParseFailed as exc:
            outcome = await self._fail(job, cast("IngestErrorCode", exc.code), exc.message)
        except (Unavailable, Timeout, OSError) as exc:
            self._hold_off(exc)
        except asyncio.CancelledError:
            pass  # the process ends
        except Exception as exc:
            log.error("ingest_defect", file=job.file.id, store=job.store_id, exc_info=exc)
            outcome = await self._fail(job, "server_error", "The service failed to put the file into the store.")
        else:
            self._pause_s = 0.0
        if outcome in ("released", "gone"):
            await self._release(job)
        FILES.labels(outcome).inc()
        seconds = round(time.monotonic() - started, 3)
        log.info(
            "ingested", outcome=outcome, file=job.file.id, store=job.store_id, attempt=job.attempt, seconds=seconds
        )

    async def _ingest(self, job: IngestJob) -> str:
        """How it ended. Raises what FileChunks.make raises, and Unavailable."""
        if job.attempt > self._settings.attempts:
            tried = f"{self._settings.attempts} times the process that read this file has died over it"
            return await self._fail(job, "server_error", f"{tried}. Please split it, or save it in another format.")
        if job.embedding != self._embeddings.pin:
            raise Unavailable("The store's vectors are being made anew for another embedding model.", retry_after_s=5.0)
        chunks = await self._chunks.make(job)
        with STAGES.labels("publish").time():
            published = await to_its_end(self._publish(job, chunks))
        return "completed" if published else "gone"

    async def _publish(self, job: IngestJob, chunks: Sequence[NewChunk]) -> bool:
        usage_bytes = await asyncio.to_thread(size_of, chunks)
        for _ in range(PUBLISH_TRIES - 1):  # what it took to make the chunks is not thrown away for a hiccup
            try:
                return await self._publish_once(job, chunks, usage_bytes)
            except Unavailable as exc:
                log.warning("ingest_not_published", file=job.file.id, chunks=len(chunks), error=exc.code)
                await self._sleep(FIRST_PAUSE_S)
        return await self._publish_once(job, chunks, usage_bytes)

    async def _publish_once(self, job: IngestJob, chunks: Sequence[NewChunk], usage_bytes: int) -> bool:
        async with self._database.writing() as uow:
            return await uow.store_files.publish(job, chunks, usage_bytes)

    async def _fail(self, job: IngestJob, code: IngestErrorCode, message: str) -> str:
        try:
            return "failed" if await to_its_end(self._write_failure(job, IngestError(code, message))) else "gone"
        except ServiceError as exc:
            self._hold_off(exc)
            return "released"

    async def _write_failure(self, job: IngestJob, error: IngestError) -> bool:
        async with self._database.writing() as uow:
            return await uow.store_files.fail(job, error)

    def _hold_off(self, exc: Exception) -> None:
        """All files would meet with the same: no new ones for a while."""
        asked = getattr(exc, "retry_after_s", 0.0)
        self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S, asked), LONGEST_PAUSE_S)
        self._not_before = asyncio.get_running_loop().time() + self._pause_s
        log.warning("ingest_holds_off", seconds=self._pause_s, error=getattr(exc, "code", type(exc).__name__))

    async def _release(self, job: IngestJob) -> None:
        """Does nothing if it is not ours any more. Does not raise."""
        try:
            await to_its_end(self._write_release(job))
        except ServiceError:
            self._unreleased.append(job)

    async def _write_release(self, job: IngestJob) -> None:
        async with self._database.writing() as uow:
            await uow.store_files.release(job)

    async def _release_rest(self) -> None:
        unreleased, self._unreleased = self._unreleased, []
        for job in unreleased:
            await self._release(job)

    async def _keep(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await self._keep_once()
            except ServiceError as exc:
                log.error("ingest_leases_not_renewed", error=exc.code)
            except Exception as exc:  # a defect must not end the renewals
                log.error("ingest_leases_not_renewed", exc_info=exc)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), self._settings.lease_s / RENEWALS_PER_LEASE)

    async def _keep_once(self) -> None:
        if self._work:
            async with self._database.writing() as uow:
                await uow.store_files.renew(self._owner, self._clock() + self._settings.lease_s)
        await self._release_rest()
        if await self.release_orphans():
            self.wake()

    async def release_orphans(self) -> int:
        """The jobs of processes that are certainly dead; how many there were. Raises Unavailable."""
        async with self._database.reading() as uow:
            owners = await uow.store_files.owners()
        return sum([await self._release_all(owner) for owner in owners if owner != self._owner and is_dead(owner)])

    async def _release_all(self, owner: str) -> int:
        async with self._database.writing() as uow:
            count = await uow.store_files.release_all(owner)
        log.warning("ingest_jobs_released", owner=owner, count=count)
        return count


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """A transaction, also if who waits for it is cancelled: it is not left in its middle."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("ingest_cut_off", error=type(error).__name__)
        raise


def size_of(chunks: Sequence[NewChunk]) -> int:
    """Bytes of texts and vectors; blocks."""
    return sum(len(chunk.text.encode()) + chunk.vectors.nbytes for chunk in chunks)
