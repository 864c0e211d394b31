"""Triton as a child: the tritonserver binary of `nvidia-pytriton`, loopback only, with our model repository."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
import sysconfig
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2_grpc

from deploy.launcher import embedder
from deploy.launcher.budget import Budget
from deploy.launcher.embedder_probe import EmbedderProbe
from deploy.launcher.family import Command
from deploy.launcher.problem import Problem
from deploy.launcher.supervisor import ServiceFailed
from frontend.domain import model_card
from frontend.domain.model_card import ModelCard
from frontend.settings import ROOT, Settings
from frontend.triton import wire

REPOSITORY = ROOT / "model_repository"
PROBE_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
"""A fresh connection for every probe: gRPC's shared pool would remember the failures while Triton loads, and look again
only after a backoff that grows to two minutes (25 s lost on a start of 40)."""
REQUIRED_NUMPY = "1.26.4"
"""What Triton 24.10's Python stub reads, see docs/decisions/0003."""
RESTRICTED = "shared-memory,model-repository,trace,logging"
"""gRPC services that can change the server: closed."""
CLOSED = "closed to all"
"""The header that would open them, with a random value. gRPC sends none that has blanks in its name, and resets the stream of
who does (Triton 24.10): the value, which every user of the machine can read on the command line, opens nothing."""

OFF = (
    *("--model-control-mode=none", "--disable-auto-complete-config", "--trace-config=level=OFF"),
    *(
        "--allow-http=false",
        "--allow-sagemaker=false",
        "--allow-vertex-ai=false",
    ),  # the last is on where AIP_MODE says so
    "--grpc-infer-allocation-pool-size=64",
)
"""No server but that of gRPC, no model but those that it starts with, no traces; responses kept for reuse are few."""


NICENESS = 10
"""The engine computes on every core without a pause, and the frontend needs each of them for a millisecond. On 2 cores, with ten
times as many clients as slots and everything at one priority, refusals took up to 1.1 s, and it was a quarter of a second in
which a process that only wakes up did not get one (`python -m perf overload`)."""


class NotNow(Exception):
    """The engine's loop did not answer in time: it hangs, or it is busy, or this machine was asleep. Patience will tell."""


class TritonService:
    name = "triton"

    def __init__(
        self, settings: Settings, card: ModelCard, folder: Path, budget: Budget, embedder_folder: Path | None
    ) -> None:
        self._settings = settings
        self._card = card
        self._files = model_card.files_of(folder, card)
        self._budget = budget
        self._embedder_folder = embedder_folder
        self._embedder_probe: EmbedderProbe | None = None
        self._packages = packages(settings.engine.environment)
        self._shm_prefix = f"hermes2-{hashlib.sha256(str(settings.home).encode()).hexdigest()[:8]}-"
        self.start_timeout_s = settings.engine.start_timeout_s
        self.stop_timeout_s = settings.engine.drain_timeout_s + 10
        self.hang_timeout_s = settings.engine.hang_timeout_s

    def command(self) -> Command:
        self._remove_shared_memory()
        repository = self._write_repository()
        if self._embedder_folder is not None:
            self._embedder_probe = EmbedderProbe(repository / "embedder/1/model.py")
        triton = self._settings.triton
        argv = [
            str(self._packages / "pytriton/tritonserver/bin/tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={self._write_backends()}",
            f"--backend-config=python,shm-region-prefix-name={self._shm_prefix}",
            *OFF,
            "--grpc-address=127.0.0.1",
            f"--grpc-port={triton.grpc_port}",
            f"--grpc-restricted-protocol={RESTRICTED}:{CLOSED}={secrets.token_urlsafe(32)}",
            "--metrics-address=127.0.0.1",
            f"--metrics-port={triton.metrics_port}",
            f"--exit-timeout-secs={int(self._settings.engine.drain_timeout_s) + 5}",
        ]
        return Command(self.name, argv, self._environment(), NICENESS)

    async def probe(self) -> None:
        """Asks the engine's own loop, through Triton and the stub, and the embedder at the same time: neither takes of the time
        that the other has. Raises ServiceFailed if one of them says that it is lost."""
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{self._settings.triton.grpc_port}", options=PROBE_OPTIONS
        ) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            probes = [probe_engine(stub)]
            if self._embedder_probe is not None:
                probes.append(self._embedder_probe.ask(stub))
            await asyncio.gather(*probes)

    def _write_repository(self) -> Path:
        """The repository that Triton reads: our model's files, and config.pbtxt with this machine's parameters."""
        target = self._settings.home / "run/model_repository"
        shutil.rmtree(target, ignore_errors=True)
        model = target / "hermes2"
        model.mkdir(parents=True)
        (model / "1").symlink_to(REPOSITORY / "hermes2/1")
        config = text_format.Parse((REPOSITORY / "hermes2/config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        config.parameters.clear()
        for name, value in self.parameters().items():
            config.parameters[name].string_value = value
        (model / "config.pbtxt").write_text(text_format.MessageToString(config))
        if self._embedder_folder is not None:
            embedder.write(self._settings, self._embedder_folder, target / "embedder", REQUIRED_NUMPY)
        return target

    def parameters(self) -> dict[str, str]:
        """The engine's arguments for this machine, as parameters of config.pbtxt (hermes2_backend/config.py)."""
        engine = self._settings.engine
        vllm: dict[str, object] = {
            "model": str(self._files),
            "served_model_name": self._card.id,
            "dtype": engine.dtype,
            "max_model_len": self._budget.max_model_len,
            "max_num_seqs": engine.max_num_seqs,
            "max_num_queued_reqs": engine.max_queued,
            "kv_cache_memory_bytes": self._budget.kv_cache_bytes,
            "enforce_eager": engine.enforce_eager,
            "structured_outputs_config": {"backend": "xgrammar"},
            **engine.extra,
        }
        own = {
            "engine": engine.backend,
            "scripted_token_interval_ms": engine.scripted_token_interval_ms,
            "scripted_replies": str(engine.scripted_replies or ""),
            "health_timeout_s": engine.hang_timeout_s / 2,
            "drain_timeout_s": engine.drain_timeout_s,
            "required_numpy": REQUIRED_NUMPY,
        }
        parameters = own | {f"vllm.{name}": value for name, value in vllm.items()}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}

    def _write_backends(self) -> Path:
        """Triton's Python backend with the stub of our Python beside it; the wheel keeps the stub elsewhere."""
        source = self._packages / "pytriton/tritonserver"
        target = self._settings.home / "run/backends/python"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source / "backends/python", target, ignore=shutil.ignore_patterns("__pycache__"))
        stub = target / "triton_python_backend_stub"
        shutil.copy(source / "python_backend_stubs/3.11/triton_python_backend_stub", stub)
        stub.chmod(0o755)
        return target.parent

    def _environment(self) -> Mapping[str, str]:
        """The stub finds its Python by PATH and VIRTUAL_ENV, and its libraries by LD_LIBRARY_PATH."""
        environment = self._settings.engine.environment
        cores = sorted(os.sched_getaffinity(0))[: self._budget.cpus]
        passed = ("HOME", "LANG", "TMPDIR", "TZ", "SSL_CERT_FILE", "HF_HOME", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        return {
            **{name: os.environ[name] for name in passed if name in os.environ},
            # The engine reads OpenTelemetry's variables itself (hermes2_backend/tracing.py).
            **{name: value for name, value in os.environ.items() if name.startswith("OTEL_")},
            **openmp(environment),
            "PATH": f"{environment / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "VIRTUAL_ENV": str(environment),
            "LD_LIBRARY_PATH": f"{libpython_folder()}:{self._packages / 'nvidia_pytriton.libs'}",
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
            "VLLM_CACHE_ROOT": str(self._settings.home / "cache/vllm"),
            "TORCHINDUCTOR_CACHE_DIR": str(self._settings.home / "cache/inductor"),
            # vLLM's own cache of compiled models does not load on the CPU (0.32: "'function' object has no attribute
            # 'finalize_loading'", 35 s lost at each start); the inductor's does, and says "fx graph cache hit" in the log.
            "VLLM_USE_AOT_COMPILE": "0",
            # Names of layers as strings: with vLLM's own type PyTorch cannot call the compiled graph's kernels from C++
            # (hermes2_backend/cpu_worker.py).
            "VLLM_USE_LAYERNAME": "0",
            "TORCH_LOGS": "torch._inductor.codecache",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        }

    def _remove_shared_memory(self) -> None:
        """A tritonserver that was killed leaves its regions in /dev/shm."""
        for region in Path("/dev/shm").glob(f"{self._shm_prefix}*"):  # noqa: S108  # Triton's choice of place
            region.unlink(missing_ok=True)


async def probe_engine(stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
    """Raises ServiceFailed, NotNow."""
    async for response in stub.ModelStreamInfer(one(wire.probe_request("health"))):
        if response.error_message:
            raise ServiceFailed(f"Triton answers: {response.error_message}")
        if error := wire.parse_error(wire.raw_outputs(response.infer_response)):
            if error.code == "UNAVAILABLE":
                raise NotNow(error.message)
            raise ServiceFailed(f"the engine answers: {error.message}")


async def one(request: object) -> AsyncIterator[object]:
    yield request


def packages(environment: Path) -> Path:
    """The environment's site-packages. Raises Problem if Triton is not installed there."""
    found = next(environment.glob("lib/python3.11/site-packages/pytriton"), None)
    if found is None:
        raise Problem(
            f"engine.environment (HERMES2_ENGINE_ENVIRONMENT): no Triton in {environment}; `make serve` installs it"
        )
    return found.parent


def openmp(environment: Path) -> dict[str, str]:
    """Intel's OpenMP, which comes with vLLM, in place of GNU's; its idle threads give the core back after 1 ms.

    The engine's threads share the cores with frontend, Triton and stub. GNU's spin: with a model of fast steps the loop
    in the stub waited for seconds, and was taken for hung. Measured on 2 cores with the whole service, tokens/s with 1 and
    16 streams: this 53 and 408, GNU's without spinning 36 and 340, one thread 47 and 343.
    """
    library = environment / "lib/libiomp5.so"
    return {"LD_PRELOAD": str(library), "KMP_BLOCKTIME": "1"} if library.exists() else {"OMP_WAIT_POLICY": "passive"}


def libpython_folder() -> Path:
    """Where libpython3.11.so.1.0 lies, which the stub is linked to. Raises Problem."""
    folders = [Path(str(sysconfig.get_config_var(name))) for name in ("LIBDIR", "LIBPL")]
    folders += [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib"), Path("/usr/local/lib")]
    for folder in folders:
        if (folder / "libpython3.11.so.1.0").exists():
            return folder
    raise Problem(
        "libpython3.11.so.1.0 was not found, which Triton's Python backend needs: apt-get install libpython3.11"
    )
