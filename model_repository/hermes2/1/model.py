"""Triton's entry into hermes2: reads tensors off requests and hands them over; execute() never waits."""

# ruff: noqa: E402, I001
import locale

# The stub runs in the C locale whatever the environment says, and torch then fails to read its own templates.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

import gc
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from hermes2_backend import config, family, wire
from hermes2_backend.backend import Backend
from hermes2_backend.errors import BackendError
from hermes2_backend.streams import Tensors


class Responder:
    """Triton's response sender for one request; see hermes2_backend.streams.Responder."""

    def __init__(self, sender: Any) -> None:
        self._sender = sender

    def send(self, tensors: Tensors, final: bool) -> None:
        outputs = [pb_utils.Tensor(name, array) for name, array in tensors.items()]
        self._sender.send(pb_utils.InferenceResponse(outputs), flags=self._flags(final))

    def fail(self, error: BackendError) -> None:
        triton_error = pb_utils.TritonError(str(error), getattr(pb_utils.TritonError, error.code))
        self._sender.send(pb_utils.InferenceResponse(error=triton_error), flags=self._flags(True))

    def end(self) -> None:
        self._sender.send(flags=self._flags(True))

    def is_cancelled(self) -> bool:
        return bool(self._sender.is_cancelled())

    @staticmethod
    def _flags(final: bool) -> int:
        return int(pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL) if final else 0


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        """Called once; Triton reports the model ready when it returns."""
        settings = config.parse(json.loads(args["model_config"])["parameters"])
        check_numpy(settings.required_numpy)
        family.watch_parent()
        self._backend = Backend(settings, log=pb_utils.Logger.log_info)
        self._backend.start()
        gc.collect()
        gc.freeze()  # what there is now stays: collecting must not go through it again while streams wait

    def execute(self, requests: Sequence[Any]) -> None:
        """Decoupled: answers leave through the response senders."""
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs() if tensor.name() in wire.INPUTS}
            self._backend.submit(
                Responder(request.get_response_sender()), inputs, request.parameters(), request.request_id()
            )

    def finalize(self) -> None:
        self._backend.stop()


def check_numpy(required: str) -> None:
    """A stub built for numpy 1 hands over garbage with numpy 2; another environment's numpy shows here too."""
    if required and np.__version__ != required:
        raise RuntimeError(
            f"numpy {required} is needed by this Triton's Python stub, found {np.__version__} in {np.__file__}"
        )
