"""Triton's own doors, asked of the real server: what changes it is closed to everybody, what only tells is open on loopback."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import grpc
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.stack import Stack

pytestmark = pytest.mark.real

ADMIN: Mapping[str, Mapping[str, object]] = {
    "RepositoryIndex": {},
    "RepositoryModelLoad": {"model_name": "hermes2"},
    "RepositoryModelUnload": {"model_name": "hermes2"},
    "SystemSharedMemoryStatus": {},
    "SystemSharedMemoryRegister": {"name": "region", "key": "/region", "byte_size": 64},
    "SystemSharedMemoryUnregister": {},
    "CudaSharedMemoryStatus": {},
    "CudaSharedMemoryRegister": {"name": "region", "raw_handle": b"x" * 64, "byte_size": 64},
    "CudaSharedMemoryUnregister": {},
    "TraceSetting": {},
    "LogSettings": {},
}
READING: Mapping[str, Mapping[str, object]] = {
    "ServerLive": {},
    "ServerReady": {},
    "ServerMetadata": {},
    "ModelReady": {"name": "hermes2"},
    "ModelMetadata": {"name": "hermes2"},
    "ModelConfig": {"name": "hermes2"},
    "ModelStatistics": {"name": "hermes2"},
}
"""perf_analyzer needs them."""
INFERRING = {"ModelInfer", "ModelStreamInfer"}
METHODS = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name


@pytest.fixture
def stub(scripted_stack: Stack) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
    with grpc.insecure_channel(scripted_stack.grpc) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def call(
    stub: service_pb2_grpc.GRPCInferenceServiceStub,
    name: str,
    fields: Mapping[str, object],
    metadata: list[tuple[str, str]] | None = None,
) -> object:
    request = getattr(service_pb2, f"{name}Request")(**fields)
    return getattr(stub, name)(request, metadata=metadata, timeout=10)


def restriction(stack: Stack) -> tuple[str, str]:
    """Header and value, as every user of the machine can read them on Triton's command line."""
    (argument,) = (each for each in stack.find("bin/tritonserver").cmdline() if "restricted-protocol" in each)
    match = re.fullmatch(r"--grpc-restricted-protocol=[a-z,-]+:(.*)=([A-Za-z0-9_-]{43})", argument)
    assert match is not None
    return f"triton-grpc-protocol-{match[1]}", match[2]


def test_every_method_is_told_apart() -> None:
    """One that a new Triton brings is put on one of these lists."""
    assert set(METHODS) == ADMIN.keys() | READING.keys() | INFERRING


@pytest.mark.parametrize("name", ADMIN)
def test_what_changes_the_server_is_closed(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, scripted_stack: Stack, name: str
) -> None:
    """Repository, shared memory, tracing, logging: without the header, with its value under other names, and with itself."""
    header, value = restriction(scripted_stack)
    tries = [None, [("hermes2-admin", value)], [("triton-grpc-protocol-hermes2-admin", value)], [(header, value)]]
    for metadata in tries:
        with pytest.raises(grpc.RpcError) as caught:
            call(stub, name, ADMIN[name], metadata)
        assert re.search("restricted|Invalid metadata", caught.value.details()), caught.value.details()


@pytest.mark.parametrize("name", READING)
def test_what_only_tells_is_open(stub: service_pb2_grpc.GRPCInferenceServiceStub, name: str) -> None:
    """Health, metadata, configuration, statistics."""
    assert call(stub, name, READING[name]) is not None


@pytest.mark.parametrize("started", ["scripted_stack", "stack"])
def test_the_service_listens_where_it_is_told_and_nowhere_else(started: str, request: pytest.FixtureRequest) -> None:
    """API, Triton's gRPC and its metrics, all on loopback here: no HTTP, SageMaker or Vertex endpoint. vLLM's worker, which
    talks to itself (torch.distributed), has ports of its own, on loopback too."""
    stack: Stack = request.getfixturevalue(started)
    listening = {
        (process.name(), connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in stack.family()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {ip for _, ip, _ in listening} == {"127.0.0.1"}, listening
    others = {port for name, _, port in listening if started == "scripted_stack" or not name.startswith("VLLM::")}
    assert others == {stack.port, stack.grpc_port, stack.metrics_port}, listening
