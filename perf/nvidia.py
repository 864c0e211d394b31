"""NVIDIA's vLLM backend, from a checkout, in the Triton and with the engine's arguments of our launcher; asked over gRPC.

It knows no chats: a prompt is the text that the model's template makes of one. Each request has a stream of its own on one
connection, and messages stay bytes: what the clients compute on the same machine is taken from the service.
"""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import grpc
import msgspec
from tritonclient.grpc import service_pb2, service_pb2_grpc

from deploy.launcher.triton import PROBE_OPTIONS
from perf import headline, open_loop, service, vllm_server

MODEL = "vllm_model"
ENTRY = "nvidia_model.py"
CONFIG = f'backend: "python"\ndefault_model_filename: "{ENTRY}"\ninstance_group [{{ count: 1 kind: KIND_MODEL }}]\n'
"""A name of its own: in the engine's environment "model" is ours. The backend writes the rest of its configuration itself."""
METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
INFER_RESPONSE = b"\x12"
"""The first byte of a ModelStreamInferResponse without an error: the tag of its field 2."""
PROBE_S = 5.0


class Backend(msgspec.Struct, frozen=True):
    grpc_port: int
    system: str | None
    """What the model's template puts before a chat that begins without a system's turn."""


@contextmanager
def running(checkout: Path, **overrides: object) -> Iterator[Backend]:
    """`overrides`: of our settings, as environment variables without their prefix."""
    grpc_port, metrics_port = service.free_ports(2)
    with TemporaryDirectory() as home:
        ports = {"TRITON_GRPC_PORT": grpc_port, "TRITON_METRICS_PORT": metrics_port}
        ours = vllm_server.prepared(home, {**overrides, **ports})
        command = ours.triton.command()
        repository = Path(home) / "run/nvidia"
        write_repository(repository, checkout, ours.triton.parameters())
        argv = [f"--model-repository={repository}" if "--model-repository" in each else each for each in command.argv]
        argv.remove("--disable-auto-complete-config")
        log = Path(home) / "triton.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, env=dict(command.environment), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            vllm_server.wait_until(partial(is_ready, grpc_port), log, process)
            yield Backend(grpc_port, ours.card.chat.default_system)
        finally:
            service.stop(process)


def write_repository(target: Path, checkout: Path, parameters: Mapping[str, str]) -> None:
    """The backend as a Python model, which is what Triton makes of it. `parameters`: of our config.pbtxt."""
    version = target / MODEL / "1"
    shutil.copytree(checkout / "src", version, ignore=shutil.ignore_patterns("__pycache__"))
    (version / "model.py").rename(version / "nvidia_backend.py")
    shutil.copy(Path(__file__).parent / ENTRY, version)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    (version / "model.json").write_text(json.dumps(vllm_server.engine_args(parameters)))


def is_ready(grpc_port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=PROBE_OPTIONS) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=PROBE_S).ready)
        except grpc.RpcError:
            return False


async def series(backend: Backend, arrivals: Sequence[float], seed: int) -> open_loop.Run:
    """With the prompts of headline.series."""
    prompts = open_loop.prompts(len(arrivals), words=headline.PROMPT_WORDS, seed=seed)
    requests = [request(open_loop.as_text(prompt, backend.system)) for prompt in prompts]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{backend.grpc_port}") as channel:
        return await open_loop.send(partial(ask, channel.stream_stream(METHOD)), arrivals, requests)


def request(prompt: str) -> bytes:
    sampling = {"max_tokens": headline.ANSWER_TOKENS, "ignore_eos": True, "temperature": 0.7}
    message = service_pb2.ModelInferRequest(model_name=MODEL)
    for name, datatype, raw in (
        ("text_input", "BYTES", text(prompt)),
        ("stream", "BOOL", b"\1"),
        ("sampling_parameters", "BYTES", text(json.dumps(sampling))),
        ("exclude_input_in_output", "BOOL", b"\1"),
    ):
        message.inputs.add(name=name, datatype=datatype, shape=[1])
        message.raw_input_contents.append(raw)
    return bytes(message.SerializeToString())


def text(value: str) -> bytes:
    """A tensor of one element."""
    raw = value.encode()
    return struct.pack("<I", len(raw)) + raw


async def ask(call: Callable[..., Any], asked: bytes, due: float) -> open_loop.Outcome:
    """`call`: ModelStreamInfer with bytes both ways. Each answer has as many tokens as were asked for: nothing ends it before."""
    first_s, message = 0.0, b""
    try:
        async for message in call(one(asked)):
            first_s = first_s or time.perf_counter() - due
            if not message.startswith(INFER_RESPONSE):
                break
    except grpc.RpcError as exc:
        return failed(due, repr(exc))
    response = service_pb2.ModelStreamInferResponse.FromString(message)
    if response.error_message or not response.infer_response.parameters["triton_final_response"].bool_param:
        return failed(due, response.error_message or "the stream ended early")
    return open_loop.Outcome(first_s, time.perf_counter() - due, 0, headline.ANSWER_TOKENS)


def failed(due: float, error: str) -> open_loop.Outcome:
    now = time.perf_counter() - due
    return open_loop.Outcome(now, now, 0, 0, error)


async def one(message: bytes) -> AsyncIterator[bytes]:
    yield message
