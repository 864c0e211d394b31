"""A block of a Llama model in numpy: what its Linears see while a text is read. Refuses to know anything of quantisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.launcher.quantize_tensors import Array


@dataclass(frozen=True, slots=True)
class Shape:
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    epsilon: float
    frequencies: Array
    """(head_size / 2,): radians that one position turns each pair by."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape:
        """From a config.json. Raises ValueError for what this module does not compute."""
        if why := unsupported(config):
            raise ValueError(why)
        heads = config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=head_size(config),
            epsilon=config["rms_norm_eps"],
            frequencies=frequencies(config),
        )


def unsupported(config: Mapping[str, Any]) -> str | None:
    """Why a model cannot be quantised here, in words; None if it can."""
    if config.get("quantization_config"):
        return "it is quantised already"
    if config.get("architectures") != ["LlamaForCausalLM"]:
        return f"its architecture is {config.get('architectures')}, and only LlamaForCausalLM is known"
    if config.get("attention_bias") or config.get("mlp_bias") or config.get("hidden_act", "silu") != "silu":
        return "it has biases or an activation that Llama models do not have"
    if rope(config)[1].get("rope_type", "default") not in ("default", "llama3"):
        return f"its positions are of type {rope(config)[1].get('rope_type')}"
    return None


def head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def rope(config: Mapping[str, Any]) -> tuple[float, Mapping[str, Any]]:
    """Base and scaling, from where transformers 5 writes them or where the versions before it did."""
    new = config.get("rope_parameters")
    if new:
        return float(new["rope_theta"]), new
    old = config.get("rope_scaling") or {}
    return float(config.get("rope_theta", 10000.0)), {
        **old,
        "rope_type": old.get("rope_type", old.get("type", "default")),
    }


def frequencies(config: Mapping[str, Any]) -> Array:
    base, scaling = rope(config)
    size = head_size(config)
    plain = base ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    if scaling.get("rope_type", "default") == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = scaling["original_max_position_embeddings"] * plain / (2 * math.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
        plain = plain * (kept + (1 - kept) / scaling["factor"])
    return plain.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Block:
    """Weights of one layer, (outputs, inputs) each."""

    norm: Array
    q: Array
    k: Array
    v: Array
    o: Array
    mlp_norm: Array
    gate: Array
    up: Array
    down: Array


@dataclass(frozen=True, slots=True)
class Seen:
    """What the Linears of one layer get, (tokens, inputs) each. The inputs of qkv and gate-up are without the norm's weight."""

    qkv: Array
    o: Array
    gate_up: Array
    down: Array


def normalised(x: Array, epsilon: float) -> Array:
    power: Array = np.mean(np.square(x), axis=-1, keepdims=True)
    found: Array = x / np.sqrt(power + np.float32(epsilon))
    return found


def run(shape: Shape, block: Block, x: Array) -> tuple[Array, Seen]:
    """`x`: (windows, length, hidden), the stream before the layer. Returns it after the layer, and what was seen on the way."""
    windows, length, _ = x.shape
    attention = normalised(x, shape.epsilon)
    mixed = attend(shape, block, attention * block.norm)
    x = x + mixed @ block.o.T
    mlp = normalised(x, shape.epsilon)
    given = mlp * block.mlp_norm
    gate = given @ block.gate.T
    inner = gate / (1 + np.exp(-np.clip(gate, -80, 80))) * (given @ block.up.T)
    x = x + inner @ block.down.T
    flat = (each.reshape(windows * length, -1) for each in (attention, mixed, mlp, inner))
    return x, Seen(*flat)


def attend(shape: Shape, block: Block, x: Array) -> Array:
    """(windows, length, heads * head_size): the values that each head has collected."""
    windows, length, _ = x.shape
    groups = shape.heads // shape.kv_heads

    def heads(weight: Array, count: int) -> Array:
        return (x @ weight.T).reshape(windows, length, count, shape.head_size).transpose(0, 2, 1, 3)

    q = turned(shape, heads(block.q, shape.heads)).reshape(windows, shape.kv_heads, groups, length, shape.head_size)
    k = turned(shape, heads(block.k, shape.kv_heads))[:, :, None]
    v = heads(block.v, shape.kv_heads)[:, :, None]
    scores = q @ k.swapaxes(-1, -2) / np.float32(math.sqrt(shape.head_size))
    scores = np.where(np.tri(length, dtype=np.bool_), scores, np.float32(-1e30))
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    found: Array = (weights / weights.sum(axis=-1, keepdims=True)) @ v
    return found.reshape(windows, shape.heads, length, -1).transpose(0, 2, 1, 3).reshape(windows, length, -1)


def turned(shape: Shape, x: Array) -> Array:
    """Rotary positions; the halves of a head are the pairs. `x`: (windows, heads, length, head_size)."""
    angle = np.arange(x.shape[2], dtype=np.float32)[:, None] * shape.frequencies
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
