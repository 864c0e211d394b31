"""Triton's entry into embedder: one batch of requests in, one response for each out."""

# ruff: noqa: E402, I001
import locale

from embedder_backend import family

# The stub runs in the C locale whatever the environment says, and torch then fails to read its own templates.
locale.setlocale(locale.LC_ALL, "C.UTF-8")
# Before torch is imported, which takes seconds: a server that is killed meanwhile would go unnoticed for ever.
family.watch_parent()

import gc
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from embedder_backend import config, wire
from embedder_backend.embedder import Embedder
from embedder_backend.errors import InvalidArgument


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        """Called once; Triton reports the model ready when it returns."""
        settings = config.parse(json.loads(args["model_config"])["parameters"])
        if settings.required_numpy and np.__version__ != settings.required_numpy:
            raise RuntimeError(
                f"numpy {settings.required_numpy} is needed by this Triton's Python stub,"
                f" found {np.__version__} in {np.__file__}"
            )
        device = f"cuda:{args['model_instance_device_id']}" if args["model_instance_kind"] == "GPU" else "cpu"
        self._embedder = Embedder(settings.folder, threads=settings.threads, device=device)
        self._embedder.embed(self._embedder.tokenize(["warm"]))
        gc.collect()
        gc.freeze()  # what there is now stays: collecting need not go through it again

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """All requests go through the model together; one that is wrong fails alone."""
        rows: list[wire.Tokens] = []
        answers: list[slice | InvalidArgument] = []
        for request in requests:
            try:
                mine = self._read({tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
            except InvalidArgument as exc:
                answers.append(exc)
            else:
                answers.append(slice(len(rows), len(rows) + len(mine)))
                rows += mine
        vectors = self._embedder.embed(rows) if rows else np.empty((0, 0), np.float32)
        responses = []
        for answer in answers:
            if isinstance(answer, InvalidArgument):
                error = pb_utils.TritonError(str(answer), pb_utils.TritonError.INVALID_ARG)
                responses.append(pb_utils.InferenceResponse(error=error))
            else:
                tensors = wire.encode(vectors[answer], rows[answer])
                outputs = [pb_utils.Tensor(name, array) for name, array in tensors.items()]
                responses.append(pb_utils.InferenceResponse(outputs))
        return responses

    def _read(self, inputs: wire.Tensors) -> list[wire.Tokens]:
        texts = wire.texts(inputs)
        rows = wire.token_rows(inputs) if texts is None else self._embedder.tokenize(texts)
        self._embedder.check(rows)
        return rows
