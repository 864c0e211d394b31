"""deploy/launcher/profiles: what the engine's settings are where nobody has set them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deploy.launcher import profiles
from frontend import settings as settings_module
from frontend.settings import Settings


@pytest.fixture
def has_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "cpu_flags", lambda: frozenset({"avx2", "avx512_vnni", "avx512_bf16"}))


def settings_of(folder: Path, tmp_path: Path, **more: str) -> Settings:
    given = {"HERMES2_MODEL": str(folder), "HERMES2_HOME": str(tmp_path), "HERMES2_MODELS": str(tmp_path / "models")}
    return settings_module.load(given | {f"HERMES2_ENGINE_{name}": value for name, value in more.items()})


def applied(settings: Settings) -> tuple[object, object, object, str]:
    said = list[str]()
    engine = profiles.applied(settings, said.append).engine
    return engine.weights, engine.enforce_eager, engine.extra, said[-1]


@pytest.mark.usefixtures("has_vnni")
def test_int8_where_the_cpu_multiplies_it(llama_source: Path, tmp_path: Path) -> None:
    weights, eager, extra, said = applied(settings_of(llama_source, tmp_path))
    assert (weights, eager, extra) == ("int8", False, {"block_size": 32})
    assert said == (
        "engine profile: cpu-int8 (this CPU has avx512_vnni): weights int8, bfloat16, compiled, block_size 32"
    )


def test_bf16_where_the_cpu_multiplies_that_alone(
    llama_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "cpu_flags", lambda: frozenset({"avx2", "avx512_bf16"}))
    weights, eager, extra, said = applied(settings_of(llama_source, tmp_path))
    assert (weights, eager, extra) == ("as-is", True, {})
    assert said.endswith("(this CPU has none of avx512_vnni, amx_int8): weights as-is, bfloat16, eager")


def test_float32_elsewhere(llama_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But not for a model that would need twice as much of much memory."""
    monkeypatch.setattr(profiles, "cpu_flags", lambda: frozenset({"avx2", "avx512f"}))
    mine = settings_of(llama_source, tmp_path)
    weights, eager, extra, said = applied(mine)
    assert (weights, eager, extra) == ("as-is", False, {"block_size": 32})
    assert "has none of avx512_vnni, amx_int8, avx512_bf16, amx_bf16): weights as-is, float32, compiled" in said
    assert profiles.applied(settings_of(llama_source, tmp_path, DTYPE="bfloat16"), print).engine.dtype == "bfloat16"
    monkeypatch.setattr(profiles, "MOST_CONVERTED_BYTES", 1000)
    assert applied(mine)[3].endswith(
        "is large; engine.profile=cpu-f32 converts it all the same): weights as-is, bfloat16, eager"
    )


def test_who_asks_for_int8_where_it_is_slow_is_told(
    llama_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "cpu_flags", lambda: frozenset({"avx2"}))
    said = list[str]()
    engine = profiles.applied(settings_of(llama_source, tmp_path, PROFILE="cpu-int8"), said.append).engine
    assert engine.weights == "int8"
    assert said[-2].startswith("warning: int8 is slow on this CPU")
    assert said[-2].endswith("cpu-f32 is faster")


@pytest.mark.usefixtures("has_vnni")
def test_what_is_set_stays(llama_source: Path, tmp_path: Path) -> None:
    """Each setting for itself; a profile can be chosen, too."""
    mine = settings_of(llama_source, tmp_path, ENFORCE_EAGER="true", EXTRA='{"block_size": 64, "seed": 1}')
    assert applied(mine)[:3] == ("int8", True, {"block_size": 64, "seed": 1})
    assert applied(settings_of(llama_source, tmp_path, PROFILE="cpu-bf16"))[:2] == ("as-is", True)
    assert applied(settings_of(llama_source, tmp_path, PROFILE="cpu-bf16", WEIGHTS="int8"))[:2] == ("int8", True)


@pytest.mark.usefixtures("has_vnni")
def test_a_model_that_cannot_be_quantised_is_served_as_it_is(llama_source: Path, tmp_path: Path) -> None:
    """Only where nobody asked for INT8: who did is told (models.prepare)."""
    folder = tmp_path / "other"
    shutil.copytree(llama_source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["MistralForCausalLM"]}))
    weights, eager, _, said = applied(settings_of(folder, tmp_path))
    assert (weights, eager) == ("as-is", True)
    assert "only LlamaForCausalLM is known" in said


@pytest.mark.usefixtures("has_vnni")
def test_a_large_model_is_not_quantised_unasked(
    llama_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "MOST_CONVERTED_BYTES", 1000)
    assert applied(settings_of(llama_source, tmp_path))[0] == "as-is"
    assert applied(settings_of(llama_source, tmp_path, PROFILE="cpu-int8"))[0] == "int8"


def test_flags_are_read(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: A\nflags\t\t: fpu avx512_vnni\n\nflags\t\t: other\n")
    assert profiles.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx512_vnni"}
    (tmp_path / "arm").write_text("Features\t: asimd\n")
    assert profiles.cpu_flags(tmp_path / "arm") == frozenset()
