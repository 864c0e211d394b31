"""Everything this package takes from vLLM, in one place: what moves with vLLM's versions breaks here and nowhere else."""

from __future__ import annotations

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import GracefulHTTPError, VLLMClientError
from vllm.inputs import TextPrompt
from vllm.inputs.engine import tokens_input
from vllm.outputs import RequestOutput
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError
from vllm.v1.metrics.prometheus import get_prometheus_registry

__all__ = [
    "AsyncEngineArgs",
    "AsyncLLM",
    "EngineDeadError",
    "EngineGenerateError",
    "GracefulHTTPError",
    "RequestOutput",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
    "TextPrompt",
    "VLLMClientError",
    "current_platform",
    "get_prometheus_registry",
    "tokens_input",
]
