"""Everything that the running frontend holds open, in one place with one end."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from frontend.db.database import open_database
from frontend.db.engines import database_url
from frontend.domain import model_card, profiles
from frontend.domain.embedding import card as embedding_card
from frontend.domain.embedding.encoder import EmbeddingEncoder
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.ports import Embedder, Engine, HotState, Limiter
from frontend.domain.profiles import Profiles
from frontend.domain.seal import Seal
from frontend.domain.storage import Database
from frontend.observability.trace_exporters import exporting
from frontend.retrieval_runtime import assemble_retrieval
from frontend.services.chat import ChatService
from frontend.services.completions import CompletionService
from frontend.services.context.builder import ContextBuilder
from frontend.services.context.summaries import SummaryService
from frontend.services.conversations import ConversationService, Forget
from frontend.services.embeddings import EmbeddingService
from frontend.services.expiry import Expiry
from frontend.services.file_search import FileSearchService
from frontend.services.files import FileService
from frontend.services.generate import Generator
from frontend.services.health import HealthService
from frontend.services.idempotency import IdempotencyService
from frontend.services.keys.authentication import ApiKeyService
from frontend.services.keys.management import KeyService
from frontend.services.keys.pepper import read_pepper
from frontend.services.limits.gate import Gate
from frontend.services.limits.plans import Plans
from frontend.services.limits.queue import WAIT_SHARE, FairQueue
from frontend.services.lookups import Lookups
from frontend.services.memory.service import MemoryService
from frontend.services.metrics import MetricsService
from frontend.services.models import ModelService
from frontend.services.previews import Previews
from frontend.services.responses.background import BackgroundRuns
from frontend.services.responses.compaction import Compactor
from frontend.services.responses.maker import ResponseMaker
from frontend.services.responses.service import ResponseService
from frontend.services.search import SearchService
from frontend.services.sessions import SessionService
from frontend.services.store_files import StoreFileService
from frontend.services.stored_completions import StoredCompletionService
from frontend.services.tokenize import Tokenizer
from frontend.services.turns import TurnKeeper
from frontend.services.vector_stores import VectorStoreService
from frontend.services.windows import Windows
from frontend.settings import Settings, SettingsError
from frontend.triton.embedder import open_embedder
from frontend.triton.engine import open_engine
from frontend.triton.server_metrics import TritonMetrics
from frontend.valkey.breaker import Breaker
from frontend.valkey.hot_state import open_state
from frontend.valkey.limiter import open_limiter

TOKENIZER_THREADS = 2
BUILT_IN_PROFILES = Path(__file__).parent / "profiles"


class Runtime(msgspec.Struct, frozen=True):
    """Each field is what handlers may ask for by its name (providers.py)."""

    settings: Settings
    engine: Engine
    encoder: Encoder
    api_keys: ApiKeyService
    keys: KeyService
    gate: Gate
    idempotency: IdempotencyService
    models: ModelService
    profiles: Profiles
    chat: ChatService
    stored_completions: StoredCompletionService
    completions: CompletionService
    responses: ResponseService
    conversations: ConversationService
    sessions: SessionService
    seal: Seal
    files: FileService
    embeddings: EmbeddingService | None
    """None without an embedding model, as the next three."""
    vector_stores: VectorStoreService | None
    store_files: StoreFileService | None
    search: SearchService | None
    health: HealthService
    metrics: MetricsService


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Opens every connection and pool, and closes them in the opposite order. Raises SettingsError, Unavailable."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(exporting())
        address = f"{settings.triton.grpc_host}:{settings.triton.grpc_port}"
        engine = await stack.enter_async_context(open_engine(address, settings.http.request_timeout_s))
        embedder = None
        if settings.embedder.enabled:
            embedder = await stack.enter_async_context(open_embedder(address, settings.embedder.timeout_s))
        breaker = Breaker(settings.valkey.timeout_s)
        state = await stack.enter_async_context(open_state(valkey_url(settings), breaker))
        sql = settings.sql
        limiter = await stack.enter_async_context(open_limiter(valkey_url(settings), breaker, settings.workers))
        database = await stack.enter_async_context(
            open_database(
                database_url(settings), pool_size=sql.pool_size, timeout_s=sql.timeout_s, synchronous=sql.synchronous
            )
        )
        threads = stack.enter_context(ThreadPoolExecutor(TOKENIZER_THREADS, "tokenizer"))
        settings.home.mkdir(parents=True, exist_ok=True)
        pepper = read_pepper(settings.home / "pepper")
        triton = TritonMetrics(settings.triton.grpc_host, settings.triton.metrics_port)
        parts = assemble(settings, engine, state, database, pepper, threads, embedder, limiter, triton.read)
        yield await stack.enter_async_context(parts)


@asynccontextmanager
async def assemble(
    settings: Settings,
    engine: Engine,
    state: HotState,
    database: Database,
    pepper: bytes,
    threads: Executor,
    embedder: Embedder | None,
    limiter: Limiter,
    triton_metrics: Callable[[], Awaitable[str]] | None = None,
) -> AsyncIterator[Runtime]:
    """The services on top of the adapters, and what they do in the background. Raises SettingsError."""
    folder = model_folder(settings)
    card = model_card.read(folder)
    encoder = Encoder.from_folder(model_card.files_of(folder, card))
    renderer = PromptRenderer(encoder, card.chat, card.raw_bos)
    window_tokens = min(settings.engine.max_model_len, card.context_tokens)
    tokenizer = Tokenizer(renderer, threads, settings.limits.tokenize_inline_chars, window_tokens=window_tokens)
    generator = Generator(engine, encoder.vocab_size, renderer.end_of_turn, pepper)
    embedding = None if embedder is None else embedding_card.read(embedder_folder(settings), settings.embedder.model)
    models = ModelService(card, window_tokens, embedding)
    embeddings, retrieval = None, None
    if embedder is not None and embedding is not None:
        vocabulary = EmbeddingEncoder.from_folder(embedder_folder(settings))
        inline_chars = settings.limits.tokenize_inline_chars
        embeddings = EmbeddingService(models, embedding, vocabulary, embedder, threads, inline_chars)
        retrieval = assemble_retrieval(settings, database, embeddings, tokenizer, threads)
    memory = retrieval.memory if retrieval else None
    remember = memory.after_turn if memory else no_memory
    plans = Plans(settings.limits.plans)
    gate = Gate(limiter, plans, fair_queue(settings))
    idempotency = IdempotencyService(database)
    named = load_profiles(settings)
    lasting = settings.conversations
    contexts = ContextBuilder(tokenizer, settings.context)
    file_search = FileSearchService(retrieval.search, tokenizer, settings.retrieval) if retrieval else None
    lookups = Lookups(file_search, memory, settings.retrieval)
    previews = Previews(database, state, models, named, contexts, lookups)
    forget = forgetting(state, memory)
    conversations = ConversationService(
        database,
        named,
        lasting,
        preview=previews.of,
        forget=forget,
        remember=remember,
        check_length=tokenizer.check_length,
    )
    sessions = SessionService(database, conversations, lasting)
    keeper = TurnKeeper(database, state, lease_s=lasting.lease_s, most_items=lasting.most_items)
    background = BackgroundRuns(
        database, most_per_tenant=lasting.background_per_tenant, drain_s=settings.http.drain_timeout_s
    )
    summaries = SummaryService(database, state, contexts, tokenizer, generator, gate, remember=remember)
    windows = Windows(database, state, conversations)
    maker = ResponseMaker(
        database=database,
        models=models,
        profiles=named,
        sessions=sessions,
        windows=windows,
        contexts=contexts,
        generator=generator,
        keeper=keeper,
        summaries=summaries,
        lookups=lookups,
        gate=gate,
    )
    forget_store = retrieval.search.forget if retrieval else None
    expiry = Expiry(database, events_s=lasting.events_s, forget=forget, forget_store=forget_store)
    api_keys = ApiKeyService(api_key(settings), database, pepper)
    health = HealthService(engine, database, state, embedder)
    runs = {"model": card.id, "engine": settings.engine.backend}
    metrics = MetricsService(health, engine, triton_metrics, runs, across_processes=settings.workers > 1)
    async with AsyncExitStack() as stack:
        of_documents = [retrieval.running()] if retrieval is not None else []
        for work in (
            plans.running(),
            gate.running(),
            api_keys.running(),
            keeper.running(),
            expiry.running(),
            *of_documents,
            summaries.running(),
            background.running(),
            idempotency.running(),
            metrics.running(),
        ):
            await stack.enter_async_context(work)
        yield Runtime(
            settings=settings,
            engine=engine,
            encoder=encoder,
            api_keys=api_keys,
            keys=KeyService(database, pepper),
            gate=gate,
            idempotency=idempotency,
            models=models,
            profiles=named,
            chat=ChatService(
                database=database,
                models=models,
                profiles=named,
                sessions=sessions,
                windows=windows,
                contexts=contexts,
                tokenizer=tokenizer,
                generator=generator,
                keeper=keeper,
                summaries=summaries,
                lookups=lookups,
                gate=gate,
                max_messages=settings.limits.messages,
            ),
            stored_completions=StoredCompletionService(database, models),
            completions=CompletionService(models, tokenizer, generator, gate),
            responses=ResponseService(database, maker, background, Compactor(tokenizer, generator, gate), gate),
            conversations=conversations,
            sessions=sessions,
            seal=Seal(pepper),
            files=FileService(database, settings.retrieval),
            embeddings=embeddings,
            vector_stores=retrieval.vector_stores if retrieval else None,
            store_files=retrieval.store_files if retrieval else None,
            search=retrieval.search if retrieval else None,
            health=health,
            metrics=metrics,
        )


def fair_queue(settings: Settings) -> FairQueue:
    """Its bounds, where they are not set, by what the engine runs at once. Who sets how many may wait gets so many, however long
    that takes, up to admission.max_wait_s."""
    slots = settings.admission.slots or math.ceil(settings.engine.max_num_seqs / settings.workers)
    max_waiting = settings.admission.max_waiting
    return FairQueue(
        slots,
        max_waiting=max(1, slots // 8) if max_waiting is None else max_waiting,
        max_wait_s=settings.admission.max_wait_s,
        wait_share=WAIT_SHARE if max_waiting is None else math.inf,
    )


def no_memory(tenant: str, conversation_id: str) -> None:
    """Without an embedding model nothing is remembered."""


def forgetting(state: HotState, memory: MemoryService | None) -> Forget:
    """Takes a conversation that is gone out of what this process and Valkey hold of it."""

    async def forget(tenant: str, conversation_id: str) -> None:
        await state.drop_window(tenant, conversation_id)
        if memory is not None:
            await memory.forget(tenant, conversation_id)

    return forget


def load_profiles(settings: Settings) -> Profiles:
    """The built-in conversation profiles and the user's own. Raises SettingsError."""
    if settings.profiles is not None and not settings.profiles.is_dir():
        raise SettingsError(f"profiles (HERMES2_PROFILES): {settings.profiles} is not a folder")
    try:
        return profiles.load([BUILT_IN_PROFILES, *([settings.profiles] if settings.profiles else [])])
    except ValueError as exc:
        raise SettingsError(f"profiles (HERMES2_PROFILES): {exc}") from exc


def model_folder(settings: Settings) -> Path:
    if settings.model_dir is None:
        raise SettingsError("model_dir (HERMES2_MODEL_DIR): set it to a prepared model, or start with `hermes2 serve`")
    return settings.model_dir


def embedder_folder(settings: Settings) -> Path:
    if settings.embedder.model_dir is None:
        raise SettingsError(
            "embedder.model_dir (HERMES2_EMBEDDER_MODEL_DIR): set it to the folder of the embedding model,"
            " start with `hermes2 serve`, or set HERMES2_EMBEDDER_ENABLED=false"
        )
    return settings.embedder.model_dir


def valkey_url(settings: Settings) -> str:
    if settings.valkey.url is None:
        raise SettingsError("valkey.url (HERMES2_VALKEY_URL): set it, or start with `hermes2 serve`")
    return settings.valkey.url


def api_key(settings: Settings) -> str:
    if settings.api_key is not None:
        return settings.api_key
    if not settings.api_key_file.exists():
        raise SettingsError(f"api_key (HERMES2_API_KEY): unset, and there is no {settings.api_key_file}")
    return settings.api_key_file.read_text().strip()
