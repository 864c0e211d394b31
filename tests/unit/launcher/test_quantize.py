"""deploy/launcher/quantize: the same function in INT8, in files that vLLM reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from deploy.launcher import models, quantize, quantize_llama, quantize_rotate, quantize_smooth, quantize_tensors
from deploy.launcher.problem import Problem
from deploy.launcher.quantize_llama import Block, Shape
from deploy.launcher.quantize_rotate import Rotation
from deploy.launcher.quantize_tensors import Array, Checkpoint
from frontend.domain import model_card


@pytest.fixture(scope="module")
def quantised(llama_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two-layer Llama, with weights that have outliers."""
    source = with_outliers(llama_source, tmp_path_factory.mktemp("source") / "model")
    target = tmp_path_factory.mktemp("int8")
    quantize.main(source, target)
    shutil.copy(source / "model.safetensors", target / "before")
    return target


def with_outliers(llama_source: Path, folder: Path) -> Path:
    """Some channels of the norms are eight times as large as the others, as trained models have it."""
    shutil.copytree(llama_source, folder)
    with Checkpoint(folder) as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint}
    for name, tensor in tensors.items():
        if name.endswith("layernorm.weight"):
            tensor[::32] *= 8
    quantize_tensors.write(
        folder / "model.safetensors", {name: quantize_tensors.bfloat16(tensor) for name, tensor in tensors.items()}
    )
    return folder


def before(quantised: Path, tmp_path: Path) -> Path:
    shutil.copy(quantised / "before", tmp_path / "model.safetensors")
    return tmp_path


def restored(checkpoint: Checkpoint, layer: int) -> Block:
    """Weights as what they stand for."""

    def read(name: str) -> Array:
        scale = f"model.layers.{layer}.{name}.weight_scale"
        weight = checkpoint.read(f"model.layers.{layer}.{name}.weight")
        return weight * checkpoint.read(scale) if scale in checkpoint else weight

    return Block(**{key: read(name) for key, name in (quantize.LINEARS | quantize.NORMS).items()})


def stream(shape: Shape, checkpoint: Checkpoint, x: Array) -> Array:
    for layer in range(shape.layers):
        x, _ = quantize_llama.run(shape, restored(checkpoint, layer), x)
    return x


def ended(shape: Shape, checkpoint: Checkpoint, x: Array) -> Array:
    """The logits of a stream after the last layer."""
    head = checkpoint.read("lm_head.weight")
    if "lm_head.weight_scale" in checkpoint:
        head = head * checkpoint.read("lm_head.weight_scale")
    given: Array = quantize_llama.normalised(x, shape.epsilon) * checkpoint.read("model.norm.weight")
    return given @ head.T


def test_smoothing_changes_no_output(quantised: Path, tmp_path: Path) -> None:
    """What is divided out of activations is in the weights, to the last digits; also where heads share keys and values."""
    shape = Shape.of(json.loads((quantised / "config.json").read_text()) | {"quantization_config": None})
    x = np.random.default_rng(1).standard_normal((2, 24, 128)).astype(np.float32)
    with Checkpoint(before(quantised, tmp_path)) as old:
        block = quantize.read(old, 0)
    wanted, seen = quantize_llama.run(shape, block, x)
    smoothed, inner = quantize.smoothed(shape, block, seen)
    found, again = quantize_llama.run(shape, smoothed, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(again.down, inner, rtol=1e-2, atol=1e-3)
    assert not np.allclose(smoothed.norm, block.norm, rtol=0.1)


@pytest.mark.parametrize("size", [64, 128, 576, 17])
def test_a_rotation_keeps_lengths_and_spreads_outliers(size: int) -> None:
    """It is orthonormal for sizes with and without factors, and no channel keeps more than a few shares of an outlier."""
    rotation = Rotation.of(size)
    turned = rotation.of_inputs(np.eye(size, dtype=np.float32))
    np.testing.assert_allclose(turned @ turned.T, np.eye(size), atol=1e-5)
    assert np.abs(turned).max() <= 2.01 / np.sqrt(size)


def test_rotating_changes_no_output(quantised: Path, tmp_path: Path) -> None:
    """A rotated layer does to a rotated stream what the layer does to the stream; also where heads share keys and values."""
    shape = Shape.of(json.loads((quantised / "config.json").read_text()) | {"quantization_config": None})
    x = np.random.default_rng(1).standard_normal((2, 24, 128)).astype(np.float32)
    rotation = Rotation.of(128)
    with Checkpoint(before(quantised, tmp_path)) as old:
        block = quantize.read(old, 0)
    wanted, _ = quantize_llama.run(shape, block, x)
    found, _ = quantize_llama.run(shape, quantize_rotate.rotated(shape, block, rotation), rotation.of_inputs(x))
    np.testing.assert_allclose(found, rotation.of_inputs(wanted), rtol=1e-3, atol=1e-3)


def test_the_model_computes_what_it_did(quantised: Path, tmp_path: Path) -> None:
    """Rounded and put together again, the two layers move the stream as before, within a fiftieth, in their own basis."""
    shape = Shape.of(json.loads((quantised / "config.json").read_text()) | {"quantization_config": None})
    rotation = Rotation.of(128)
    x = np.random.default_rng(1).standard_normal((2, 24, 128)).astype(np.float32)
    with Checkpoint(before(quantised, tmp_path)) as old, Checkpoint(quantised) as new:
        plain = stream(shape, old, x)
        x, wanted, found = rotation.of_inputs(x), rotation.of_inputs(plain), stream(shape, new, rotation.of_inputs(x))
        wanted_logits, logits = ended(shape, old, plain), ended(shape, new, wanted)
    assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted - x)
    assert np.linalg.norm(logits - wanted_logits) < 0.02 * np.linalg.norm(wanted_logits)


def test_smoothing_makes_activations_easier_to_round(quantised: Path, tmp_path: Path) -> None:
    """What rounding tokens to INT8 costs q, k and v is less than a quarter of what it was, in power."""
    shape = Shape.of(json.loads((quantised / "config.json").read_text()) | {"quantization_config": None})
    x = np.random.default_rng(1).standard_normal((2, 24, 128)).astype(np.float32)
    losses = []
    with Checkpoint(before(quantised, tmp_path)) as old, Checkpoint(quantised) as new:
        for checkpoint, here in ((old, x), (new, Rotation.of(128).of_inputs(x))):
            block = restored(checkpoint, 0)
            given = quantize_llama.normalised(here, shape.epsilon).reshape(-1, 128) * block.norm
            scales = np.abs(given).max(axis=1, keepdims=True) / 127
            losses.append(float(np.square((np.rint(given / scales) * scales - given) @ block.q.T).sum()))
    assert losses[1] < 0.25 * losses[0]


def test_files_are_those_that_vllm_reads(quantised: Path) -> None:
    """INT8 weights with a scale for each output, dynamic scales of tokens; what stays in bf16 is named in `ignore`."""
    config = json.loads((quantised / "config.json").read_text())["quantization_config"]
    group = config["config_groups"]["group_0"]
    assert (config["quant_method"], config["format"]) == ("compressed-tensors", "int-quantized")
    assert (group["weights"]["strategy"], group["weights"]["dynamic"]) == ("channel", False)
    assert (group["input_activations"]["strategy"], group["input_activations"]["dynamic"]) == ("token", True)
    kept = set(config["ignore"])
    assert len(kept) == round(2 * quantize.KEPT_DOWNS)
    assert json.loads((quantised / "config.json").read_text())["tie_word_embeddings"] is False
    header = quantize_tensors.header((quantised / "model.safetensors").read_bytes())
    assert header["lm_head.weight"]["dtype"] == "I8"
    assert header["model.embed_tokens.weight"]["dtype"] == "BF16"
    for layer in range(2):
        for key in quantize.LINEARS:
            name = quantize.linear(layer, key)
            assert header[f"{name}.weight"]["dtype"] == ("BF16" if name in kept else "I8")
            assert (f"{name}.weight_scale" in header) == (name not in kept)
    assert header["model.layers.0.self_attn.q_proj.weight_scale"] == {
        **header["model.layers.0.self_attn.q_proj.weight_scale"],
        "dtype": "F32",
        "shape": [128, 1],
    }
    assert (quantised / "tokenizer.json").exists()


def test_descent_is_never_worse_than_smoothquant() -> None:
    """It begins at the best of SmoothQuant's exponents, and returns the best point that it has seen."""
    rng = np.random.default_rng(3)
    inputs = (rng.standard_normal((200, 64)) * np.exp(rng.standard_normal(64))).astype(np.float32)
    weights = rng.standard_normal((48, 64)).astype(np.float32)
    loss = quantize_smooth.Loss.of(inputs, weights)
    found = quantize_smooth.factors(inputs, weights)
    exponent = np.log(np.abs(inputs).max(axis=0) / np.abs(weights).max(axis=0)) / 2
    assert loss.at(np.log(found))[0] < 0.9 * loss.at(exponent.astype(np.float32))[0]


def test_it_is_prepared_once(llama_source: Path, tmp_path: Path, engine_environment: Path) -> None:
    """In a folder of its own beside the model as it is, checked by digest, and made anew only when its source has changed."""
    source, said = tmp_path / "mine", list[str]()
    shutil.copytree(llama_source, source)

    def prepare() -> Path:
        return models.prepare(str(source), tmp_path / "models", engine_environment, said.append, "int8")

    first = prepare()
    card = model_card.read(first)
    assert card.id == "mine"
    assert card.weights_dtype == "bfloat16"
    assert set(card.files) >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert len(said) == 1
    assert prepare() == first
    assert len(said) == 1
    (source / "generation_config.json").write_text("{}")
    assert prepare() != first


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "only LlamaForCausalLM is known"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised already"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "positions are of type linear"),
        ({"mlp_bias": True}, "biases"),
    ],
)
def test_a_model_that_it_does_not_know_is_refused(
    llama_source: Path, tmp_path: Path, engine_environment: Path, change: dict[str, object], says: str
) -> None:
    """With the setting and the reason, before anything is computed."""
    folder = tmp_path / "other"
    shutil.copytree(llama_source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(Problem, match=rf"engine\.weights \(HERMES2_ENGINE_WEIGHTS\).*{says}"):
        models.prepare(str(folder), tmp_path / "models", engine_environment, lambda _: None, "int8")
