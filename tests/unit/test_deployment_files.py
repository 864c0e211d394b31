"""The systemd unit and the compose file: the numbers of the service, and what must not be reachable."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.launcher import cli
from deploy.launcher.frontend import FrontendService
from deploy.launcher.triton import OFF, RESTRICTED
from deploy.launcher.valkey import ValkeyService
from frontend.settings import ROOT, Settings

UNIT = ROOT / "deploy/systemd/hermes2.service"
COMPOSE = ROOT / "deploy/compose/compose.yaml"
EXAMPLE = ROOT / "deploy/compose/.env.example"
DOCKERFILE = ROOT / "deploy/compose/frontend.Dockerfile"
MEMORY_BYTES = 30 * 2**30
CPUS = 4
DEFAULTS = Settings()
SECRETS = ("HERMES2_API_KEY", "HERMES2_TRITON_ADMIN_SECRET")
SCHEMA = "builtin_schemas/vendor/compose-spec.json"
"""Where the package check-jsonschema keeps the schema of the Compose specification."""


@pytest.fixture(scope="module")
def unit() -> dict[str, list[str]]:
    """The unit's settings, each with its values in order; no name is in two sections."""
    settings: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            settings.setdefault(name, []).append(value)
    return settings


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file as it is written, variables and all."""
    parsed: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return parsed


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = compose["services"]
    return parsed


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Every variable of .env.example with a value."""
    values = {name: value or "x" * 32 for name, value in example().items()}
    return {**values, "HERMES2_MODEL_DIR": str(tmp_path_factory.mktemp("model"))}


def example() -> dict[str, str]:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def size_bytes(text: str) -> int:
    """A size as Docker and systemd read it: K, M and G are powers of 1024."""
    match = re.fullmatch(r"(\d+)([KMG])", text)
    assert match is not None, text
    return int(match[1]) << {"K": 10, "M": 20, "G": 30}[match[2]]


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def options(arguments: list[str]) -> dict[str, list[str]]:
    """["--port", "0", "--save", ""] as a table."""
    table: dict[str, list[str]] = {}
    for argument in arguments:
        if argument.startswith("--"):
            values = table[argument] = []
        else:
            values.append(argument)
    return table


def limit(service: Mapping[str, Any], resource: str) -> str:
    return str(service["deploy"]["resources"]["limits"][resource])


def test_unit_has_the_numbers_of_the_service(unit: dict[str, list[str]]) -> None:
    """Under systemd the service gets 30G of memory and four cores, and its own budget fits into them."""
    assert unit["MemoryMax"] == ["30G"]
    assert unit["CPUQuota"] == ["400%"]
    assert size_bytes("30G") == MEMORY_BYTES >= DEFAULTS.memory_limit
    assert DEFAULTS.cpus == CPUS


def test_unit_starts_the_launcher(unit: dict[str, list[str]]) -> None:
    """The unit runs a command that the launcher has, in the home that the unit gives it."""
    assert unit["ExecStart"] == [f"{unit['WorkingDirectory'][0]}/.venv/bin/hermes2 serve"]
    assert "serve" in cli.hermes2.commands
    assert f"HERMES2_HOME=/var/lib/{unit['StateDirectory'][0]}" in unit["Environment"]


def test_unit_waits_for_open_requests(unit: dict[str, list[str]], tmp_path: Path) -> None:
    """systemd kills nothing before the launcher's own patience with its family is over."""
    frontend = FrontendService(DEFAULTS, tmp_path, "")
    triton_stop_timeout_s = DEFAULTS.engine.drain_timeout_s + 10  # TritonService's own sum; making one needs Triton
    patience_s = frontend.stop_timeout_s + triton_stop_timeout_s + ValkeyService.stop_timeout_s
    assert unit["KillMode"] == ["mixed"]
    assert int(unit["TimeoutStopSec"][0]) > patience_s


def test_unit_leaves_the_engine_what_it_needs(unit: dict[str, list[str]]) -> None:
    """The sandbox closes the file system, but not run-time compilation, /proc/meminfo or a GPU."""
    assert unit["ProtectSystem"] == ["strict"]
    assert unit["NoNewPrivileges"] == ["yes"]
    assert unit.keys().isdisjoint({"MemoryDenyWriteExecute", "ProcSubset", "PrivateDevices", "ProtectClock"})
    assert {"AF_UNIX", "AF_INET", "AF_INET6"} <= set(unit["RestrictAddressFamilies"][0].split())


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about the unit."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on this machine (Debian: apt-get install systemd)")
    # It asks for a program that exists; the real one lies in /opt on the machine that the unit is made for.
    text, replaced = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    assert replaced == 1
    (tmp_path / UNIT.name).write_text(text)
    done = run([analyze, "verify", "--man=no", str(tmp_path / UNIT.name)])
    # A misspelt setting is only a warning: the exit status alone would not tell.
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
    assert done.returncode == 0, done.stderr


def test_compose_shares_the_numbers_of_the_service(services: dict[str, Any]) -> None:
    """The limits of all services together are 30 GB, as systemd counts them, and four cores."""
    assert sum(size_bytes(limit(service, "memory")) for service in services.values()) == MEMORY_BYTES
    assert sum(Decimal(limit(service, "cpus")) for service in services.values()) == CPUS


def test_compose_limits_hold_the_shares_of_the_settings(services: dict[str, Any]) -> None:
    """What the settings give to frontend and Valkey fits into the limits of their containers."""
    memory = DEFAULTS.memory
    frontend_bytes = memory.frontend_worker * DEFAULTS.workers + memory.sql + memory.indexes
    assert size_bytes(limit(services["frontend"], "memory")) >= frontend_bytes
    assert size_bytes(limit(services["valkey"], "memory")) >= memory.valkey


def test_only_the_api_is_published(services: dict[str, Any]) -> None:
    """Of all ports only 11401 leaves the containers, and by default no further than this machine."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    address = "${HERMES2_LISTEN_ADDRESS:-127.0.0.1}"
    assert published == {"frontend": [{"target": 11401, "published": "11401", "host_ip": address}]}
    assert DEFAULTS.port == 11401
    assert not any("network_mode" in service for service in services.values())


def test_frontend_listens_where_compose_looks(services: dict[str, Any]) -> None:
    """The image's command, its health check and the published port name the same port."""
    command = json.loads(DOCKERFILE.read_text().partition("\nCMD ")[2].replace("\\\n", ""))
    assert command[command.index("--port") + 1] == str(DEFAULTS.port)
    assert f":{DEFAULTS.port}/health/live" in services["frontend"]["healthcheck"]["test"][-1]


def test_image_bounds_requests_as_the_launcher_does(tmp_path: Path) -> None:
    """Everything that it tells Granian about HTTP, by the same values."""
    image = options(json.loads(DOCKERFILE.read_text().partition("\nCMD ")[2].replace("\\\n", ""))[2:])
    launcher = options(FrontendService(Settings(home=tmp_path), tmp_path, "").command().argv[4:])
    bounds = {name for name in launcher if name.startswith("--http") or name == "--workers-kill-timeout"}
    assert len(bounds) == 4
    assert {name: image[name] for name in bounds} == {name: launcher[name] for name in bounds}


def test_engine_and_valkey_are_on_the_inner_network_only(compose: dict[str, Any], services: dict[str, Any]) -> None:
    """Triton and Valkey have no way out and no way in, except for the frontend."""
    inner = {name for name, network in compose["networks"].items() if network.get("internal")}
    assert set(services["triton"]["networks"]) <= inner
    assert set(services["valkey"]["networks"]) <= inner
    assert inner < set(services["frontend"]["networks"])


def test_engine_is_closed_as_the_launcher_closes_it(services: dict[str, Any]) -> None:
    """The same calls of Triton need a secret as under the launcher; all servers but that of gRPC are off, and so is model
    control."""
    command = services["triton"]["command"]
    restricted = [argument for argument in command if "restricted" in argument]
    assert len(restricted) == 1
    assert restricted[0].startswith(f"--grpc-restricted-protocol={RESTRICTED}:hermes2-admin=${{{SECRETS[1]}:?")
    assert set(OFF) <= set(command)


def test_engine_image_has_the_fixes(services: dict[str, Any]) -> None:
    """Triton is 26.07 or newer: older images have known remote holes and a Python stub without numpy 2."""
    tag = re.fullmatch(r"nvcr\.io/nvidia/tritonserver:(\d+)\.(\d+)-vllm-python-py3", services["triton"]["image"])
    assert tag is not None
    assert (int(tag[1]), int(tag[2])) >= (26, 7)


def test_engine_gets_one_gpu(services: dict[str, Any]) -> None:
    """One NVIDIA GPU is reserved for the engine."""
    devices = services["triton"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_compose_has_no_half_of_an_embedder(services: dict[str, Any]) -> None:
    """Triton is given the chat model alone, and the frontend knows it."""
    models = [v["source"] for v in services["triton"]["volumes"] if v["target"].startswith("/models-repository")]
    assert models == ["../../model_repository/hermes2"]
    assert services["frontend"]["environment"]["HERMES2_EMBEDDER_ENABLED"] == "false"


def test_containers_wait_as_long_as_the_settings(services: dict[str, Any]) -> None:
    """No container is killed while it drains, and none is called unhealthy while the model loads."""
    triton, frontend = services["triton"], services["frontend"]
    exit_timeout = next(argument for argument in triton["command"] if argument.startswith("--exit-timeout-secs="))
    exit_timeout_s = int(exit_timeout.partition("=")[2])
    assert seconds(triton["stop_grace_period"]) > exit_timeout_s > DEFAULTS.engine.drain_timeout_s
    assert seconds(frontend["stop_grace_period"]) > DEFAULTS.http.drain_timeout_s
    assert seconds(triton["healthcheck"]["start_period"]) >= DEFAULTS.engine.start_timeout_s
    assert frontend["depends_on"]["triton"] == {"condition": "service_healthy"}


def test_valkey_keeps_nothing_as_under_the_launcher(services: dict[str, Any], tmp_path: Path) -> None:
    """Persistence, maxmemory, eviction and the rights of a connection are those of the launcher's Valkey."""
    ours = options(ValkeyService(DEFAULTS, tmp_path / "valkey.sock").command().argv[1:])
    theirs = options(services["valkey"]["command"])
    same = ("--save", "--appendonly", "--maxmemory", "--maxmemory-policy", "--user")
    assert {name: theirs[name] for name in same} == {name: ours[name] for name in same}


def test_containers_have_no_privileges(services: dict[str, Any]) -> None:
    """No container has a capability or can gain one; frontend and Valkey write nothing and are not root."""
    for service in services.values():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
    assert services["frontend"]["read_only"] is True
    assert services["valkey"]["read_only"] is True
    assert services["valkey"]["user"] == "999:999"
    assert re.findall(r"(?m)^USER (.*)$", DOCKERFILE.read_text()) == ["10001:10001"]


def test_image_installs_what_is_locked() -> None:
    """The frontend's image installs the packages of service.lock, each checked by its digest, and nothing else."""
    installs = re.findall(r"pip install (.*?)\n(?=[A-Z])", DOCKERFILE.read_text(), re.DOTALL)
    assert len(installs) == 1
    assert {"--no-deps", "--require-hashes"} <= set(installs[0].split())
    assert installs[0].endswith("--requirement service.lock")


def test_no_secret_has_a_value() -> None:
    """Secrets come from the environment, the start is refused without them, and the example brings none."""
    text = COMPOSE.read_text()
    for name in SECRETS:
        assert text.count(f"${{{name}") == text.count(f"${{{name}:?") == 1
        assert example()[name] == ""


def test_example_names_every_variable() -> None:
    """.env.example has the variables of the compose file, all of them and no others."""
    assert set(re.findall(r"\$\{(\w+)", COMPOSE.read_text())) == set(example())


def test_compose_refers_to_what_it_declares(compose: dict[str, Any], services: dict[str, Any]) -> None:
    """Every network, volume, service and file that a service names exists."""
    for service in services.values():
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            if volume["type"] == "volume":
                assert volume["source"] in compose["volumes"]
            elif not volume["source"].startswith("$"):
                assert (COMPOSE.parent / volume["source"]).is_dir()
    build = services["frontend"]["build"]
    context = COMPOSE.parent / build["context"]
    assert (context / build["dockerfile"]).resolve() == DOCKERFILE
    for line in re.findall(r"(?m)^COPY (.*)$", DOCKERFILE.read_text()):
        assert (context / line.split()[0]).exists()


def test_compose_file_fits_the_specification(compose: dict[str, Any]) -> None:
    """The file is valid by the JSON schema of the Compose specification."""
    package = importlib.util.find_spec("check_jsonschema")
    if package is None or package.origin is None:
        pytest.skip("the package check-jsonschema, which brings the schema, is not installed")
    jsonschema.validate(compose, json.loads((Path(package.origin).parent / SCHEMA).read_text()))


def test_docker_compose_accepts_the_file(environment: Mapping[str, str]) -> None:
    """`docker compose config` reads the file with the variables of .env.example, and with no others."""
    command = docker_compose()
    if command is None:
        pytest.skip("Docker Compose is not on this machine")
    config = [*command, "--file", str(COMPOSE), "--env-file", os.devnull, "config", "--quiet"]
    done = run(config, environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert run(config, {**environment, SECRETS[0]: ""}).returncode != 0


def docker_compose() -> list[str] | None:
    """The plugin or the program of its own; version 1 read another file format."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is not None:
            done = run([*command, "version", "--short"])
            if done.returncode == 0 and not done.stdout.startswith("1."):
                return command
    return None


def run(command: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `command` with `variables` and of ours only what finds programs."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        command, env={**kept, **(variables or {})}, capture_output=True, text=True, timeout=60, check=False
    )
