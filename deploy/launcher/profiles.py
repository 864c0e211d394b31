"""What the engine does best with on this machine's CPU: a few static profiles, chosen by CPU flags (docs/performance.md).

A profile fills in what `engine.weights`, `engine.enforce_eager` and `engine.extra` leave open. On a GPU the values are those of
model_repository/hermes2/config.pbtxt.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from deploy.launcher import chat_format, models, quantize_llama
from frontend.domain import model_card
from frontend.settings import EngineSettings, Settings

INT8_FLAGS = ("avx512_vnni", "amx_int8")
"""Instructions that multiply INT8 numbers faster than bf16's; without one of them INT8 W8A8 only loses quality."""
MOST_QUANTISED_BYTES = 2 * 10**9
"""Weights beyond that are quantised only where the settings say so: it takes longer than a first start may."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    weights: Literal["as-is", "int8"]
    enforce_eager: bool
    extra: dict[str, Any]


PROFILES = {
    # Blocks of 32 tokens: prompts that share a system turn share it in the prefix cache, which blocks of 128 are too long for.
    "cpu-int8": Profile(weights="int8", enforce_eager=False, extra={"block_size": 32}),
    "cpu-bf16": Profile(weights="as-is", enforce_eager=True, extra={}),
}


def applied(settings: Settings, say: Callable[[str], None]) -> Settings:
    """The settings with nothing of the engine's left open. Prepares the model as it is, if need be. Raises Problem."""
    engine = settings.engine
    if engine.backend == "scripted":
        name, why = "cpu-bf16", "no model computes"
    elif engine.profile == "auto":
        name, why = chosen(settings, say)
    else:
        name, why = engine.profile, "as set"
    filled = filled_in(engine, PROFILES[name])
    compiled = "eager" if filled.enforce_eager else "compiled"
    more = "".join(f", {key} {value}" for key, value in filled.extra.items())
    say(f"engine profile: {name} ({why}): weights {filled.weights}, {compiled}{more}")
    return msgspec.structs.replace(settings, engine=filled)


def filled_in(engine: EngineSettings, profile: Profile) -> EngineSettings:
    return msgspec.structs.replace(
        engine,
        weights=profile.weights if engine.weights is None else engine.weights,
        enforce_eager=profile.enforce_eager if engine.enforce_eager is None else engine.enforce_eager,
        extra=profile.extra | engine.extra,
    )


def chosen(settings: Settings, say: Callable[[str], None]) -> tuple[str, str]:
    """The name of the profile, and why it is that one."""
    flag = next((flag for flag in INT8_FLAGS if flag in cpu_flags()), None)
    if flag is None:
        return "cpu-bf16", f"this CPU has none of {', '.join(INT8_FLAGS)}"
    folder = models.prepare(settings.model, settings.models_dir, settings.engine.environment, say)
    card = model_card.read(folder)
    if why := quantize_llama.unsupported(chat_format.read_json(model_card.files_of(folder, card) / "config.json")):
        return "cpu-bf16", f"{card.id} cannot be made int8: {why}"
    if card.weights_bytes > MOST_QUANTISED_BYTES:
        return "cpu-bf16", f"{card.id} is large; engine.profile=cpu-int8 quantises it all the same"
    return "cpu-int8", f"this CPU has {flag}"


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Of the first core."""
    lines = cpuinfo.read_text().splitlines()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ()))
