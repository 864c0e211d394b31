"""Writes a Llama model as INT8 W8A8 in the form of compressed-tensors. Runs in the engine's environment, as a script.

    python quantize.py SOURCE_FOLDER TARGET_FOLDER

Weights are rounded once here, a scale for each output; vLLM rounds activations while it computes, a scale for each token.
The stream is rotated first (quantize_rotate), and then smoothed. The factors of quantize_smooth go where nothing has to be
computed for them: into the norm before q, k, v and gate, up; into the rows of v for o, and of up for down; the LM head's into
the last norm. What down gets has an outlier in each token, always in other channels, for which no factor helps: where that is
worst, down stays in bf16. So do embeddings and norms. An LM head that shares the embeddings' weights gets weights of its own.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
# A script is its own folder's: only now are these found.
from deploy.launcher import quantize_llama, quantize_rotate, quantize_smooth, quantize_tensors
from deploy.launcher.quantize_llama import Block, Seen, Shape
from deploy.launcher.quantize_rotate import Rotation
from deploy.launcher.quantize_tensors import Array, Checkpoint, Tensor
from frontend.domain.model_card import MANIFEST

CALIBRATION = Path(__file__).with_name("calibration.txt")
WINDOW = 256
"""Tokens that are read in one piece."""
MOST_WINDOWS = 8
LINEARS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
NORMS = {"norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
KEPT_DOWNS = 0.5
"""Of all layers: those whose down, in INT8, would put the largest noise into the stream (docs/quantisation.md)."""
KEPT = ("*.json", "*.jinja", "*.model")
NOT_KEPT = ("model.safetensors.index.json", MANIFEST)


def main(source: Path, target: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    shape = Shape.of(config)
    with Checkpoint(source) as checkpoint:
        plain = checkpoint.read("model.embed_tokens.weight")
        rotation = Rotation.of(plain.shape[1])
        table = rotation.of_inputs(plain)
        x = embedded(source, table)
        tensors: dict[str, Tensor] = {"model.embed_tokens.weight": quantize_tensors.bfloat16(table)}
        noise, downs = [], []
        for layer in range(shape.layers):
            block = quantize_rotate.rotated(shape, read(checkpoint, layer), rotation)
            x, seen = quantize_llama.run(shape, block, x)
            block, inner = smoothed(shape, block, seen)
            noise.append(noise_in(inner, block.down, x))
            downs.append(quantize_tensors.bfloat16(block.down))
            tensors.update(written(block, layer))
        head = checkpoint.read("lm_head.weight") if "lm_head.weight" in checkpoint else plain
        head = rotation.of_inputs(head * checkpoint.read("model.norm.weight"))
        tensors.update(ending(shape, head, x))
    kept = sorted(np.argsort(noise)[::-1][: round(shape.layers * KEPT_DOWNS)].tolist())
    for layer in kept:
        tensors[f"{linear(layer, 'down')}.weight"] = downs[layer]
        del tensors[f"{linear(layer, 'down')}.weight_scale"]
    for pattern in KEPT:
        for path in source.glob(pattern):
            if path.name not in NOT_KEPT:
                shutil.copy(path, target / path.name)
    config |= {"quantization_config": scheme([linear(layer, "down") for layer in kept]), "dtype": "bfloat16"}
    config["tie_word_embeddings"] = False
    config.pop("torch_dtype", None)
    (target / "config.json").write_text(json.dumps(config, indent=2))
    quantize_tensors.write(target / "model.safetensors", tensors)


def embedded(source: Path, table: Array) -> Array:
    """(windows, WINDOW, hidden): the calibration text before the first layer."""
    ids = Tokenizer.from_file(str(source / "tokenizer.json")).encode(CALIBRATION.read_text()).ids
    whole = min(len(ids) // WINDOW, MOST_WINDOWS) * WINDOW
    rows: Array = table[np.array(ids[:whole])]
    return rows.reshape(-1, WINDOW, table.shape[1])


def read(checkpoint: Checkpoint, layer: int) -> Block:
    names = LINEARS | NORMS
    return Block(**{key: checkpoint.read(f"model.layers.{layer}.{name}.weight") for key, name in names.items()})


def smoothed(shape: Shape, block: Block, seen: Seen) -> tuple[Block, Array]:
    """The same function of its input, easier to round; and what its down gets, (tokens, inputs)."""

    def tie(logs: Array) -> Array:
        """The heads that share one of v's rows share its factor."""
        heads = logs.reshape(shape.kv_heads, -1, shape.head_size)
        return np.broadcast_to(heads.mean(axis=1, keepdims=True), heads.shape).reshape(-1)

    qkv, gate_up = seen.qkv * block.norm, seen.gate_up * block.mlp_norm
    for_qkv = quantize_smooth.factors(qkv, np.concatenate([block.q, block.k, block.v]))
    for_o = quantize_smooth.factors(seen.o, block.o, tie)
    for_gate_up = quantize_smooth.factors(gate_up, np.concatenate([block.gate, block.up]))
    for_down = quantize_smooth.factors(seen.down, block.down)
    norm, mlp_norm = stored(block.norm / for_qkv), stored(block.mlp_norm / for_gate_up)
    for_qkv, for_gate_up = block.norm / norm, block.mlp_norm / mlp_norm
    of_v = for_o.reshape(shape.kv_heads, -1, shape.head_size)[:, 0].reshape(-1, 1)
    equal = Block(
        norm=norm,
        q=block.q * for_qkv,
        k=block.k * for_qkv,
        v=block.v * for_qkv / of_v,
        o=block.o * for_o,
        mlp_norm=mlp_norm,
        gate=block.gate * for_gate_up,
        up=block.up * for_gate_up / for_down[:, None],
        down=block.down * for_down,
    )
    return equal, seen.down / for_down


def ending(shape: Shape, head: Array, x: Array) -> Iterator[tuple[str, Tensor]]:
    """The last norm and the LM head, smoothed. `x`: (windows, length, hidden), the stream after the last layer."""
    inputs = quantize_llama.normalised(x, shape.epsilon).reshape(-1, x.shape[-1])
    norm = stored(np.float32(1) / quantize_smooth.factors(inputs, head))
    yield "model.norm.weight", quantize_tensors.bfloat16(norm)
    yield from linear_tensors("lm_head", head / norm)


def noise_in(inputs: Array, down: Array, x: Array) -> float:
    """Power of what rounding its inputs changes, beside that of the stream that it is added to; the mean of all tokens."""
    scales = np.maximum(np.abs(inputs).max(axis=1, keepdims=True), np.float32(1e-20)) / np.float32(127)
    noise = (np.rint(inputs / scales) * scales - inputs) @ down.T
    stream = x.reshape(len(noise), -1)
    return float(np.mean(np.square(noise).sum(axis=1) / np.square(stream).sum(axis=1)))


def stored(norm: Array) -> Array:
    """As it will be in bf16, so that the weights make up for what is lost; never 0, which could not be made up for."""
    least = np.float32(1e-6)
    return quantize_tensors.as_bfloat16(np.where(np.abs(norm) < least, least, norm))


def written(block: Block, layer: int) -> Iterator[tuple[str, Tensor]]:
    for key, name in NORMS.items():
        yield f"model.layers.{layer}.{name}.weight", quantize_tensors.bfloat16(getattr(block, key))
    for key in LINEARS:
        yield from linear_tensors(linear(layer, key), getattr(block, key))


def linear_tensors(name: str, weights: Array) -> Iterator[tuple[str, Tensor]]:
    values, scales = rounded(weights)
    yield f"{name}.weight", quantize_tensors.int8(values)
    yield f"{name}.weight_scale", quantize_tensors.float32(scales)


def linear(layer: int, key: str) -> str:
    return f"model.layers.{layer}.{LINEARS[key]}"


def rounded(weights: Array) -> tuple[NDArray[np.int8], Array]:
    """(outputs, inputs) integers of -127 to 127, and (outputs, 1) scales."""
    scales = np.maximum(np.abs(weights).max(axis=1, keepdims=True), np.float32(1e-20)) / np.float32(127)
    return np.rint(weights / scales).astype(np.int8), scales


def scheme(kept: list[str]) -> dict[str, object]:
    """config.json's quantization_config, as vLLM reads it (compressed-tensors, W8A8 with dynamic scales of tokens)."""
    both = {"num_bits": 8, "type": "int", "symmetric": True}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "config_groups": {
            "group_0": {
                "targets": ["Linear", "re:.*lm_head"],
                "weights": both | {"strategy": "channel", "dynamic": False},
                "input_activations": both | {"strategy": "token", "dynamic": True},
            }
        },
        "ignore": kept,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
