"""Smoothing: one factor for each input of a group of Linears, so that INT8 loses least of what they put out.

A Linear in INT8 W8A8 rounds each token's inputs to 1/127 of the token's largest, and each output's weights to 1/127 of the
row's largest. Inputs divided by `s`, and weights multiplied with it, give the same output with other losses. With y = x / s the
expected square of the error, but for a constant, is

    sum over tokens of  max(y)^2 * sum(|w_j|^2 s_j^2)  +  sum over rows of  max(w s)^2 * sum over tokens of |y|^2

SmoothQuant takes `s` from the largest input and weight of each channel and one exponent. Here its best exponent is only the
start, and descent on the sum itself goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deploy.launcher.quantize_tensors import Array

STEPS = 60
RATE = 0.05
"""Of the first step, in log s; it falls to nothing."""
EXPONENTS = (0.3, 0.5, 0.7)
LEAST = np.float32(1e-5)


@dataclass(frozen=True, slots=True)
class Loss:
    """The sum above as a function of log s. `inputs`: (tokens, n); `weights`: (outputs, n) of all Linears that share them."""

    inputs: Array
    """|x|, each token divided by the size of its output: a loss is felt beside what it is lost from."""
    weights: Array
    """|w|."""

    @classmethod
    def of(cls, inputs: Array, weights: Array) -> Loss:
        size = np.linalg.norm(inputs @ weights.T, axis=1, keepdims=True)
        return cls(np.abs(inputs) / (size + LEAST), np.abs(weights))

    def at(self, logs: Array) -> tuple[float, Array]:
        """The loss, and its logarithm's gradient."""
        factors = np.exp(logs)
        y, w = self.inputs / factors, self.weights * factors
        y_place, w_place = y.argmax(axis=1), w.argmax(axis=1)
        y_most = np.square(y[np.arange(len(y)), y_place])
        w_most = np.square(w[np.arange(len(w)), w_place])
        y_squares = np.einsum("ij,ij->j", y, y)
        w_squares = np.einsum("ij,ij->j", w, w)
        tokens, columns, rows, energy = y_most.sum(), w_squares.sum(), w_most.sum(), y_squares.sum()
        loss = tokens * columns + rows * energy
        n = len(logs)
        slope = tokens * w_squares - columns * np.bincount(y_place, y_most, n)
        slope += energy * np.bincount(w_place, w_most, n) - rows * y_squares
        return float(loss), (2 * slope / loss).astype(np.float32)


def factors(inputs: Array, weights: Array, tie: Callable[[Array], Array] = lambda logs: logs) -> Array:
    """(n,), positive. `tie` makes equal what has to be, in a vector of logarithms or of their gradient."""
    loss = Loss.of(inputs, weights)
    starts = [np.zeros(inputs.shape[1], np.float32)]
    most_input = np.log(np.maximum(np.abs(inputs).max(axis=0), LEAST))
    most_weight = np.log(np.maximum(np.abs(weights).max(axis=0), LEAST))
    for exponent in EXPONENTS:
        start = tie(np.float32(exponent) * most_input - np.float32(1 - exponent) * most_weight)
        starts.append(start - start.mean())
    logs = min(starts, key=lambda start: loss.at(start)[0])
    return np.exp(descended(loss, logs, tie))


def descended(loss: Loss, logs: Array, tie: Callable[[Array], Array]) -> Array:
    """The best of the points that Adam visits."""
    least, best = float("inf"), logs
    mean, square = np.zeros_like(logs), np.zeros_like(logs)
    for step in range(STEPS):
        value, gradient = loss.at(logs)
        if value < least:
            least, best = value, logs
        gradient = tie(gradient)
        mean = np.float32(0.9) * mean + np.float32(0.1) * gradient
        square = np.float32(0.999) * square + np.float32(0.001) * (gradient * gradient)
        unbiased: Array = mean / (1 - 0.9 ** (step + 1)) / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8)
        logs = (logs - RATE * (1 - step / STEPS) * unbiased).astype(np.float32)
    return best
