"""What runs beside the service in containers: the writer of Triton's model repository, and the watch over the engine."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from deploy.containers import repository, watch
from deploy.launcher import budget
from deploy.launcher.triton import REQUIRED_NUMPY, TritonService
from frontend import settings as settings_module
from frontend.domain import model_card
from frontend.settings import ROOT, EngineSettings, Settings, SettingsError
from perf.service import free_ports
from tests.support.deployment import COMPOSE, run

START_TIMEOUT_S = 60.0


def config(folder: Path) -> dict[str, str]:
    """The parameters of the model in a repository."""
    text = (folder / "hermes2/config.pbtxt").read_text()
    parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
    return {name: value.string_value for name, value in parsed.parameters.items()}


def written(target: Path, environment: dict[str, str]) -> dict[str, str]:
    repository.write(target, repository.parameters(settings_module.load(environment), environment))
    return config(target)


def test_the_engine_loads_what_lies_there(tiny_llama: Path, tmp_path: Path) -> None:
    """The model's files by their path, under the name that clients see; all else is as the repository has it for one GPU."""
    found = written(tmp_path, {"HERMES2_MODEL_DIR": str(tiny_llama)})
    card = model_card.read(tiny_llama)
    production = config(ROOT / "model_repository")
    changed = {"vllm.model", "vllm.served_model_name", "health_timeout_s", "drain_timeout_s"}
    assert found["vllm.model"] == str(model_card.files_of(tiny_llama, card))
    assert found["vllm.served_model_name"] == card.id
    assert {k: v for k, v in found.items() if k not in changed} == {
        k: v for k, v in production.items() if k not in changed
    }


def test_settings_of_the_environment_reach_vllm(tiny_llama: Path, tmp_path: Path) -> None:
    """Each under vLLM's own name; an empty variable is none, and leaves the repository's value."""
    found = written(
        tmp_path,
        {
            "HERMES2_MODEL_DIR": str(tiny_llama),
            "HERMES2_ENGINE_KV_CACHE": "4GiB",
            "HERMES2_ENGINE_MAX_NUM_SEQS": "32",
            "HERMES2_ENGINE_MAX_MODEL_LEN": "",
            "HERMES2_ENGINE_EXTRA": '{"gpu_memory_utilization": 0.8}',
        },
    )
    assert found["vllm.kv_cache_memory_bytes"] == str(4 * 2**30)
    assert found["vllm.max_num_seqs"] == "32"
    assert found["vllm.max_model_len"] == config(ROOT / "model_repository")["vllm.max_model_len"]
    assert found["vllm.gpu_memory_utilization"] == "0.8"


def test_the_names_are_those_of_the_launcher() -> None:
    """deploy/launcher/triton.py and the containers tell vLLM the same settings by the same names."""
    source = (ROOT / "deploy/launcher/triton.py").read_text()
    assert TritonService.parameters.__doc__
    for theirs in repository.OF_VLLM.values():
        assert f'"{theirs}":' in source


def test_a_repository_is_written_anew(tiny_llama: Path, tmp_path: Path) -> None:
    """What an older version left there is gone; compiled files are not copied."""
    (tmp_path / "hermes2/1").mkdir(parents=True)
    (tmp_path / "hermes2/1/old.py").touch()
    written(tmp_path, {"HERMES2_MODEL_DIR": str(tiny_llama)})
    assert (tmp_path / "hermes2/1/model.py").exists()
    assert not (tmp_path / "hermes2/1/old.py").exists()
    assert not list(tmp_path.rglob("__pycache__"))


def test_a_model_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    """The start of Triton is not reached, and the line says where to look."""
    command = [sys.executable, "-m", "deploy.containers.repository", str(tmp_path)]
    done = run(command, {"HERMES2_MODEL_DIR": str(tmp_path / "none"), "PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "docs/deployment.md" in done.stderr
    with pytest.raises(SettingsError, match="HERMES2_MODEL_DIR"):
        repository.parameters(Settings(), {})


async def ask(port: int) -> str:
    """The status of one GET, as the kubelet sends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: pod\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n")
    status = (await reader.readline()).split()[1].decode()
    writer.close()
    await writer.wait_closed()
    return status


def of_triton(port: int) -> Settings:
    return msgspec.structs.replace(Settings(), triton=msgspec.structs.replace(Settings().triton, grpc_port=port))


async def answer_for(grpc_port: int) -> str:
    async with watch.listening(of_triton(grpc_port), "127.0.0.1", 0) as server:
        return await ask(server.sockets[0].getsockname()[1])


@pytest.fixture
def triton(tiny_llama: Path, tmp_path: Path, engine_environment: Path) -> Iterator[tuple[int, psutil.Process]]:
    """The gRPC port and the process of a real Triton that is started with compose's own arguments, on a repository that
    deploy.containers wrote, but for its engine (scripted) and for where this machine's Triton has its parts."""
    settings = Settings(
        home=tmp_path / "home", engine=EngineSettings(environment=engine_environment, backend="scripted")
    )
    variables = {"HERMES2_MODEL_DIR": str(tiny_llama)}
    changed = repository.parameters(settings_module.load(variables), variables)
    repository.write(tmp_path / "repository", changed | {"engine": "scripted", "required_numpy": REQUIRED_NUMPY})
    card = model_card.read(tiny_llama)
    launched = TritonService(settings, card, tiny_llama, budget.plan(settings, card), None).command()
    grpc_port, metrics_port = free_ports(2)
    here = {
        "--model-repository": tmp_path / "repository",
        "--grpc-port": grpc_port,
        "--metrics-port": metrics_port,
        "--grpc-address": "127.0.0.1",
        "--metrics-address": "127.0.0.1",
    }
    theirs = yaml.safe_load(COMPOSE.read_text())["services"]["triton"]["command"][1:]
    arguments = [argument for argument in theirs if argument.partition("=")[0] not in here]
    arguments += [argument for argument in launched.argv if argument.startswith("--backend-")]
    arguments += [f"{name}={value}" for name, value in here.items()]
    log = (tmp_path / "triton.log").open("w")
    with (
        log,
        subprocess.Popen(
            [launched.argv[0], *arguments],
            env=dict(launched.environment),
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield grpc_port, psutil.Process(process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    prefix = next(argument for argument in arguments if "shm-region-prefix-name=" in argument).rpartition("=")[2]
    for region in Path("/dev/shm").glob(f"{prefix}*"):  # noqa: S108  # a Triton that is killed leaves them
        region.unlink(missing_ok=True)


@pytest.mark.real
async def test_watch_sees_an_engine_that_works_and_one_that_does_not(triton: tuple[int, psutil.Process]) -> None:
    """503 while Triton starts, 200 when the engine's loop answers, 503 as soon as its Python process stands still."""
    grpc_port, process = triton
    async with watch.listening(of_triton(grpc_port), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        deadline = time.monotonic() + START_TIMEOUT_S
        while (status := await ask(port)) != "200" and time.monotonic() < deadline:
            assert process.is_running()
            await asyncio.sleep(0.1)
        assert status == "200"
        stub = next(each for each in process.children(recursive=True) if "stub" in each.name())
        stub.suspend()
        assert await ask(port) == "503"


async def test_watch_sees_an_engine_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 where the port takes connections and nothing answers on them."""
    monkeypatch.setattr(watch, "ANSWER_TIMEOUT_S", 0.5)

    open_: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: open_.append(writer), "127.0.0.1", 0) as silent:
        assert await answer_for(silent.sockets[0].getsockname()[1]) == "503"
    for writer in open_:
        writer.close()
        await writer.wait_closed()


async def test_watch_sees_an_engine_that_is_gone() -> None:
    """503 where nothing listens."""
    closed = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    assert await answer_for(port) == "503"


async def test_watch_is_not_held_up_by_a_caller() -> None:
    """Who says half a sentence and leaves takes nothing from the next one."""
    async with watch.listening(of_triton(1), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        _, rude = await asyncio.open_connection("127.0.0.1", port)
        rude.write(b"GET / HT")
        rude.close()
        assert await ask(port) == "503"
