"""A model of Triton's Python backend, beside the files of NVIDIA's: prepares what they expect of their process, and is it."""

import locale
import sys

# The stub starts in the C locale, in which torch cannot read its own templates.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

from hermes2_backend import family  # noqa: E402

# Else the engine's environment takes the stub for a child of vLLM, which ends with the thread of Triton that started it.
family.watch_parent()

from vllm import inputs  # noqa: E402
from vllm.v1.metrics import buckets, loggers  # noqa: E402

# Where they were in the vLLM that the backend was written for (of its release 26.01).
sys.modules["vllm.inputs.data"] = inputs
loggers.build_1_2_5_buckets = buckets.build_1_2_5_buckets

from nvidia_backend import TritonPythonModel  # type: ignore[import-not-found]  # noqa: E402

__all__ = ["TritonPythonModel"]
