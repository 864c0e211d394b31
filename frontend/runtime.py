"""Everything that the running frontend holds open, in one place with one end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from frontend.domain import model_card
from frontend.domain.hermes.encoder import Encoder
from frontend.domain.hermes.prompt import PromptRenderer
from frontend.domain.ports import Engine, HotState
from frontend.services.api_keys import ApiKeyService
from frontend.services.chat import ChatService
from frontend.services.completions import CompletionService
from frontend.services.generate import Generator
from frontend.services.health import HealthService
from frontend.services.models import ModelService
from frontend.services.tokenize import Tokenizer
from frontend.settings import Settings, SettingsError
from frontend.triton.engine import open_engine
from frontend.valkey.hot_state import open_state

TOKENIZER_THREADS = 2


class Runtime(msgspec.Struct, frozen=True):
    """Each field is what handlers may ask for by its name (providers.py)."""

    settings: Settings
    engine: Engine
    encoder: Encoder
    api_keys: ApiKeyService
    models: ModelService
    chat: ChatService
    completions: CompletionService
    health: HealthService


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncIterator[Runtime]:
    """Opens every connection and pool, and closes them in the opposite order. Raises SettingsError."""
    async with AsyncExitStack() as stack:
        address = f"{settings.triton.grpc_host}:{settings.triton.grpc_port}"
        engine = await stack.enter_async_context(open_engine(address, settings.http.request_timeout_s))
        state = await stack.enter_async_context(open_state(valkey_url(settings), settings.valkey.timeout_s))
        threads = stack.enter_context(ThreadPoolExecutor(TOKENIZER_THREADS, "tokenizer"))
        yield assemble(settings, engine, state, threads)


def assemble(settings: Settings, engine: Engine, state: HotState, threads: Executor) -> Runtime:
    """The services on top of the adapters. Raises SettingsError."""
    folder = model_folder(settings)
    card = model_card.read(folder)
    encoder = Encoder.from_folder(model_card.files_of(folder, card))
    renderer = PromptRenderer(encoder, card.chat, card.raw_bos)
    tokenizer = Tokenizer(renderer, threads, settings.limits.tokenize_inline_chars)
    generator = Generator(engine, encoder.vocab_size, renderer.end_of_turn)
    models = ModelService(card, min(settings.engine.max_model_len, card.context_tokens))
    return Runtime(
        settings=settings,
        engine=engine,
        encoder=encoder,
        api_keys=ApiKeyService(api_key(settings)),
        models=models,
        chat=ChatService(models, tokenizer, generator, settings.limits.messages),
        completions=CompletionService(models, tokenizer, generator),
        health=HealthService(engine, state),
    )


def model_folder(settings: Settings) -> Path:
    if settings.model_dir is None:
        raise SettingsError("model_dir (HERMES2_MODEL_DIR): set it to a prepared model, or start with `hermes2 serve`")
    return settings.model_dir


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
