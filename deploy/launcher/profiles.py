"""What the engine does best with on this machine's CPU: a few static profiles, chosen by CPU flags (docs/performance.md).

A profile fills in what `engine.dtype`, `engine.weights`, `engine.enforce_eager` and `engine.extra` leave open. On a GPU the
values are those of model_repository/hermes2/config.pbtxt.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from deploy.launcher import chat_format, models, quantize_llama
from frontend.domain import model_card
from frontend.domain.model_card import ModelCard
from frontend.settings import EngineSettings, Settings

INT8_FLAGS = ("avx512_vnni", "amx_int8")
"""Instructions that multiply INT8 numbers faster than bf16's; without one of them INT8 W8A8 only loses quality."""
BF16_FLAGS = ("avx512_bf16", "amx_bf16")
"""Instructions that multiply bf16; without one of them each number becomes float32 first, in every step."""
MOST_CONVERTED_BYTES = 2 * 10**9
"""Weights beyond that are quantised or made float32 only where the settings say so: it takes longer than a first start may, and
twice the memory."""


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    dtype: Literal["bfloat16", "float32"]
    weights: Literal["as-is", "int8"]
    enforce_eager: bool
    extra: dict[str, Any]


SHORT_BLOCKS = {"block_size": 32}
"""Tokens: prompts that share a system turn share it in the prefix cache, which blocks of 128 are too long for."""
PROFILES = {
    "cpu-int8": Profile(dtype="bfloat16", weights="int8", enforce_eager=False, extra=SHORT_BLOCKS),
    "cpu-bf16": Profile(dtype="bfloat16", weights="as-is", enforce_eager=True, extra={}),
    # The worker keeps weights in 16 bits all the same (hermes2_backend/cpu_linear.py).
    "cpu-f32": Profile(dtype="float32", weights="as-is", enforce_eager=False, extra=SHORT_BLOCKS),
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
    if filled.weights == "int8" and available(INT8_FLAGS) is None:
        say(f"warning: int8 is slow on this CPU, which has none of {', '.join(INT8_FLAGS)}; {unquantised()} is faster")
    compiled = "eager" if filled.enforce_eager else "compiled"
    more = "".join(f", {key} {value}" for key, value in filled.extra.items())
    say(f"engine profile: {name} ({why}): weights {filled.weights}, {filled.dtype}, {compiled}{more}")
    return msgspec.structs.replace(settings, engine=filled)


def filled_in(engine: EngineSettings, profile: Profile) -> EngineSettings:
    return msgspec.structs.replace(
        engine,
        dtype=profile.dtype if engine.dtype is None else engine.dtype,
        weights=profile.weights if engine.weights is None else engine.weights,
        enforce_eager=profile.enforce_eager if engine.enforce_eager is None else engine.enforce_eager,
        extra=profile.extra | engine.extra,
    )


def chosen(settings: Settings, say: Callable[[str], None]) -> tuple[str, str]:
    """The name of the profile, and why it is that one."""
    folder = models.prepare(settings.model, settings.models_dir, settings.engine.environment, say)
    card = model_card.read(folder)
    name, why = fastest(folder, card)
    if name != "cpu-bf16" and card.weights_bytes > MOST_CONVERTED_BYTES:
        return "cpu-bf16", f"{card.id} is large; engine.profile={name} converts it all the same"
    return name, why


def fastest(folder: Path, card: ModelCard) -> tuple[str, str]:
    """The same, for a model of any size."""
    if (flag := available(INT8_FLAGS)) is None:
        lacking = INT8_FLAGS if available(BF16_FLAGS) else INT8_FLAGS + BF16_FLAGS
        return unquantised(), f"this CPU has none of {', '.join(lacking)}"
    if why := quantize_llama.unsupported(chat_format.read_json(model_card.files_of(folder, card) / "config.json")):
        return unquantised(), f"{card.id} cannot be made int8: {why}"
    return "cpu-int8", f"this CPU has {flag}"


def unquantised() -> Literal["cpu-bf16", "cpu-f32"]:
    """The profile of this CPU for weights as they are."""
    return "cpu-bf16" if available(BF16_FLAGS) else "cpu-f32"


def available(flags: tuple[str, ...]) -> str | None:
    """The first of them that this CPU has."""
    return next((flag for flag in flags if flag in cpu_flags()), None)


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Of the first core."""
    lines = cpuinfo.read_text().splitlines()
    return frozenset(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), ()))
