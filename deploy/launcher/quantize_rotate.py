"""Rotations: the same model in another basis of its stream, in which no channel is an outlier.

A norm without weights gives a rotated stream rotated, so weights that read the stream may undo a rotation that weights that write
to it have made (QuaRot, arXiv 2404.00456; SliceGPT before it). What a token puts into one channel alone is spread over all of
them, and INT8's 127 steps, which reach up to a token's largest value, are that much finer. The values that a head collects are
rotated likewise, between v and o. All of it is in the weights: nothing is computed for it while the model runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from deploy.launcher.quantize_llama import Block, Shape
from deploy.launcher.quantize_tensors import Array

SEED = 1


@dataclass(frozen=True, slots=True)
class Rotation:
    """Of vectors of `len(signs)`: signs at random, then cosines over the rows and the columns of a square as near as can be."""

    signs: Array
    rows: Array
    columns: Array

    @classmethod
    def of(cls, size: int) -> Rotation:
        rows = max(each for each in range(1, math.isqrt(size) + 1) if size % each == 0)
        signs = np.random.default_rng(SEED).choice(np.array([-1, 1], np.float32), size)
        return cls(signs, cosines(rows), cosines(size // rows))

    def of_inputs(self, x: Array) -> Array:
        """`x`: (..., size), vectors of the stream or weights that read it, rotated in their last axis."""
        square = (x * self.signs).reshape(*x.shape[:-1], len(self.rows), len(self.columns))
        found: Array = (self.rows.T @ square @ self.columns).reshape(x.shape)
        return found

    def of_outputs(self, weights: Array) -> Array:
        """(size, inputs): weights that write to the stream."""
        found: Array = np.ascontiguousarray(self.of_inputs(weights.T).T)
        return found


def cosines(size: int) -> Array:
    """(size, size), orthonormal: the discrete cosine transform (DCT-II)."""
    place = np.arange(size, dtype=np.float64)
    found = np.cos(np.pi / size * (place[:, None] + 0.5) * place) * math.sqrt(2 / size)
    found[:, 0] = math.sqrt(1 / size)
    rounded: Array = found.astype(np.float32)
    return rounded


def rotated(shape: Shape, block: Block, stream: Rotation) -> Block:
    """The same function of a rotated stream; its norms weigh nothing any more."""
    head = Rotation.of(shape.head_size)
    values = block.v.reshape(shape.kv_heads, shape.head_size, -1)
    v = np.stack([head.of_outputs(each) for each in values]).reshape(block.v.shape)
    o = head.of_inputs(block.o.reshape(len(block.o), shape.heads, shape.head_size)).reshape(block.o.shape)
    return replace(
        block,
        norm=np.ones_like(block.norm),
        q=stream.of_inputs(block.q * block.norm),
        k=stream.of_inputs(block.k * block.norm),
        v=stream.of_inputs(v * block.norm),
        o=stream.of_outputs(o),
        mlp_norm=np.ones_like(block.mlp_norm),
        gate=stream.of_inputs(block.gate * block.mlp_norm),
        up=stream.of_inputs(block.up * block.mlp_norm),
        down=stream.of_outputs(block.down),
    )
