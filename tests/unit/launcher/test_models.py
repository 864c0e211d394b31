"""deploy/launcher/models: preparation is atomic, checked, and done once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deploy.launcher import models
from deploy.launcher.problem import Problem
from frontend.domain import model_card


@pytest.fixture
def said() -> list[str]:
    return []


def copied(smollm2: Path, target: Path) -> Path:
    """The prepared model in a folder of models of its own."""
    shutil.copytree(smollm2, target / smollm2.name)
    return target


def test_the_card_describes_the_embedded_model(smollm2: Path) -> None:
    """Sizes and formats that the budget and the prompt are made from."""
    card = model_card.read(smollm2)
    assert card.id == "smollm2-135m"
    assert card.context_tokens == 8192
    assert card.weights_dtype == "bfloat16"
    assert 260e6 < card.weights_bytes < 280e6
    assert card.kv_elements_per_token == 2 * 30 * 3 * 64
    assert card.chat.default_system == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def test_a_prepared_model_is_used_as_it_is(
    smollm2: Path, tmp_path: Path, engine_environment: Path, said: list[str]
) -> None:
    """The second preparation does nothing and says nothing."""
    folder = copied(smollm2, tmp_path)
    before = (folder / smollm2.name / model_card.MANIFEST).stat().st_mtime_ns
    assert models.prepare("smollm2-135m", folder, engine_environment, said.append) == folder / smollm2.name
    assert said == []
    assert (folder / smollm2.name / model_card.MANIFEST).stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["flipped", "short", "missing", "no manifest", "bad manifest"])
def test_damage_is_found(smollm2: Path, tmp_path: Path, said: list[str], damage: str) -> None:
    """A flipped byte, a short or missing file, a broken manifest: not intact, and said which."""
    folder = copied(smollm2, tmp_path) / smollm2.name
    tokenizer = folder / "tokenizer.json"
    if damage == "flipped":
        content = bytearray(tokenizer.read_bytes())
        content[1000] ^= 1
        tokenizer.write_bytes(content)
    elif damage == "short":
        tokenizer.write_bytes(tokenizer.read_bytes()[:-1])
    elif damage == "missing":
        tokenizer.unlink()
    elif damage == "no manifest":
        (folder / model_card.MANIFEST).unlink()
    else:
        (folder / model_card.MANIFEST).write_text("{")
    assert not models.intact(folder, said.append)
    assert bool(said) == (damage != "no manifest")


def test_an_interrupted_preparation_leaves_nothing_that_counts(llama_source: Path, tmp_path: Path) -> None:
    """Whatever was half written is thrown away, and the target appears whole."""
    target = tmp_path / "model"
    (tmp_path / ".model.draft").mkdir()
    (tmp_path / ".model.draft" / "leftover").write_text("half")

    def fails(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        models.publish(target, "model", fails, ".")
    assert not target.exists()

    def works(folder: Path) -> None:
        shutil.copytree(llama_source, folder, dirs_exist_ok=True)

    models.publish(target, "model", works, ".")
    assert model_card.read(target).id == "model"
    assert not (target / "leftover").exists()


def test_a_folder_is_used_where_it_lies(
    llama_source: Path, tmp_path: Path, engine_environment: Path, said: list[str]
) -> None:
    """Only the manifest is ours; the weights are not copied."""
    prepared = models.prepare(str(llama_source), tmp_path, engine_environment, said.append)
    card = model_card.read(prepared)
    assert model_card.files_of(prepared, card) == llama_source
    assert [path.name for path in prepared.iterdir()] == [model_card.MANIFEST]
    assert card.context_tokens == 2048


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("[INST] {{ messages[0]['content'] }} [/INST]", "not ChatML"),
        ("{{ messages[0]['content'] | trim }}", "not ChatML"),
        ("{{ raise_exception('never') }}", "fails on a plain chat"),
        ("{{ ''.__class__.__mro__ }}", "fails on a plain chat"),
        (None, "no chat template"),
    ],
)
def test_a_model_that_speaks_something_else_is_refused(
    llama_source: Path, tmp_path: Path, engine_environment: Path, template: str | None, says: str
) -> None:
    """Its prompts would be wrong; a hostile template runs in a sandbox."""
    folder = tmp_path / "other"
    shutil.copytree(llama_source, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(Problem, match=says):
        models.prepare(str(folder), tmp_path / "models", engine_environment, lambda _: None)


def test_a_name_that_is_nothing_is_refused(tmp_path: Path, engine_environment: Path) -> None:
    """With what would have been understood."""
    with pytest.raises(Problem, match="neither smollm2-135m, nor a Hugging Face id, nor a folder"):
        models.prepare("no/such/model/at all", tmp_path, engine_environment, lambda _: None)
