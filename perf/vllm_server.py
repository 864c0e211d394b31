"""vLLM's own API server on the same machine, of the same package and with the same weights: what ours is measured against."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import msgspec

from deploy.launcher import budget, models, profiles
from deploy.launcher.triton import TritonService
from frontend import settings
from frontend.domain import model_card
from frontend.domain.model_card import ModelCard
from frontend.settings import Settings
from perf import service

Kind = Literal["stock", "ours"]
"""As it comes; with the arguments, the threads and the libraries that our launcher gives to the engine."""
START_S = 300
MEMORY_SHARE = "0.7"
"""Of a node's memory, for the KV cache: the default, 0.92, does not start where something else is in it."""


class VllmServer(msgspec.Struct, frozen=True):
    url: str
    """Without /v1."""
    model: str


class Prepared(msgspec.Struct, frozen=True):
    """What our launcher would start."""

    settings: Settings
    card: ModelCard
    model: Path
    """The folder with config.json, tokenizer.json and the weights."""
    triton: TritonService


def prepared(home: str, overrides: Mapping[str, object]) -> Prepared:
    """`overrides`: of our settings, as environment variables without their prefix."""
    service.share_cache(Path(home))
    named = {f"HERMES2_{name}": str(value) for name, value in overrides.items()}
    models_dir = os.environ.get("HERMES2_MODELS", str(Path(".hermes2/models").absolute()))
    chosen = settings.load({**os.environ, "HERMES2_MODELS": models_dir, **named, "HERMES2_HOME": home})
    chosen = profiles.applied(chosen, print)
    folder = models.prepare(chosen.model, chosen.models_dir, chosen.engine.environment, print, chosen.engine.weights)
    card = model_card.read(folder)
    triton = TritonService(chosen, card, folder, budget.plan(chosen, card), None)
    return Prepared(chosen, card, model_card.files_of(folder, card), triton)


@contextmanager
def running(kind: Kind, **overrides: object) -> Iterator[VllmServer]:
    """`overrides`: of our settings, as environment variables without their prefix."""
    with TemporaryDirectory() as home:
        ours = prepared(home, {"ENGINE_PROFILE": "cpu-bf16"} | overrides if kind == "stock" else overrides)
        engine, card = ours.settings.engine, ours.card
        (port,) = service.free_ports(1)
        argv = [str(engine.environment / "bin/vllm"), "serve", str(ours.model)]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", card.id]
        environment: Mapping[str, str] = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        if kind == "ours":
            environment = ours.triton.command().environment
            argv += list(arguments(ours.triton.parameters()))
        else:
            argv += ["--dtype", "bfloat16", "--max-model-len", str(min(engine.max_model_len, card.context_tokens))]
            argv += ["--gpu-memory-utilization", MEMORY_SHARE]
        log = Path(home) / "vllm.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, env=dict(environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url, log, process)
            yield VllmServer(url, card.id)
        finally:
            service.stop(process)


def given(parameters: Mapping[str, str]) -> dict[str, str]:
    """Those of AsyncEngineArgs among the parameters of our config.pbtxt; values are JSON or text."""
    return {name.removeprefix("vllm."): value for name, value in parameters.items() if name.startswith("vllm.")}


def engine_args(parameters: Mapping[str, str]) -> dict[str, object]:
    return {name: literal(text) for name, text in given(parameters).items()}


def literal(text: str) -> object:
    """JSON where the text is such, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def arguments(parameters: Mapping[str, str]) -> Iterator[str]:
    """Those of `vllm serve`."""
    for name, value in given(parameters).items():
        option = "--" + name.replace("_", "-")
        if value in ("true", "false"):
            yield option if value == "true" else option.replace("--", "--no-", 1)
        elif name not in ("model", "served_model_name", "max_num_queued_reqs"):  # the last is of AsyncLLM alone
            yield from (option, value)


def wait_for(url: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    """Raises RuntimeError with the end of the log."""

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310  # our own, on loopback
                return True
        except (urllib.error.URLError, OSError):
            return False

    wait_until(ready, log, process)


def wait_until(ready: Callable[[], bool], log: Path, process: subprocess.Popen[bytes]) -> None:
    """Raises RuntimeError with the end of the log."""
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        if ready():
            return
        time.sleep(0.5)
    raise RuntimeError("vLLM does not start:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]))
