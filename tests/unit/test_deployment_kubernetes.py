"""The Kubernetes files: valid by Kubernetes' own schemas, with the service's numbers, closed to those that have no business."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.launcher.triton import CLOSED, OFF, RESTRICTED
from deploy.launcher.valkey import ALLOWED
from deploy.render import shares
from frontend import settings as settings_module
from frontend.settings import Settings
from tests.support.deployment import COMPOSE, KUBERNETES, program, run, size_bytes
from tests.support.prometheus import promtool

DEFAULTS = Settings()
BUILDS = ("overlays/single-node", "overlays/scaled", "base", "model")
VERSIONS = ("1.29", "1.34")
"""The oldest and the newest that the files are held against."""
CUSTOM = "ServiceMonitor"
"""Of the Prometheus Operator: Kubernetes' schemas do not know it."""
Object = dict[str, Any]

TRACED = """
resources: [hermes2/overlays/single-node]
components: [hermes2/components/tracing]
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Object]]:
    """What `kubectl kustomize` makes of each folder, and of an overlay with the component `tracing`."""
    kubectl = program("kubectl", "Debian: apt-get install kubectl, from Kubernetes' own packages")
    folder = tmp_path_factory.mktemp("kubernetes")
    shutil.copytree(KUBERNETES, folder / "hermes2")
    (folder / "kustomization.yaml").write_text(TRACED)
    texts = {}
    for name, place in [*((name, KUBERNETES / name) for name in BUILDS), ("traced", folder)]:
        done = run([kubectl, "kustomize", str(place)])
        assert (done.returncode, done.stderr) == (0, ""), name
        texts[name] = done.stdout
    return {name: [each for each in yaml.safe_load_all(text) if each] for name, text in texts.items()}


@pytest.fixture(scope="module")
def single(built: dict[str, list[Object]]) -> list[Object]:
    return built["overlays/single-node"]


def named(objects: list[Object], kind: str, name: str) -> Object:
    found = [each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    assert len(found) == 1, (kind, name)
    return found[0]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Name and pod specification of everything that starts pods."""
    for each in objects:
        if "template" in each.get("spec", {}):
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def container(objects: list[Object], pod: str, name: str | None = None) -> Object:
    found = [c for p, spec in pods(objects) if p == pod for c in spec["containers"] if c["name"] == (name or pod)]
    assert len(found) == 1
    return dict(found[0])


def milli(text: str) -> int:
    """Thousandths of a core."""
    return int(text.removesuffix("m")) if text.endswith("m") else int(Decimal(text) * 1000)


def patience_s(probe: Object) -> int:
    return int(probe["periodSeconds"]) * int(probe["failureThreshold"])


def test_schemas_know_every_field(built: dict[str, list[Object]], tmp_path: Path) -> None:
    """Every object fits the JSON schema of its kind, strictly: a field that Kubernetes does not know is an error."""
    validate = program("kubernetes-validate", "PyPI: kubernetes-validate")
    objects = {yaml.safe_dump(each) for build in built.values() for each in build if each["kind"] != CUSTOM}
    (tmp_path / "all.yaml").write_text("---\n".join(objects))
    for version in VERSIONS:
        done = run([validate, "--strict", "-k", version, str(tmp_path / "all.yaml")])
        lines = (done.stdout + done.stderr).splitlines()
        assert done.returncode == 0, [line for line in lines if "passed" not in line]
        assert len([line for line in lines if "passed" in line]) == len(objects)


def test_a_wrong_field_would_be_seen(tmp_path: Path) -> None:
    """The schemas are strict where it matters: a misspelt limit of memory is refused."""
    validate = program("kubernetes-validate", "PyPI: kubernetes-validate")
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: i, resource: {}}]\n"
    (tmp_path / "pod.yaml").write_text(text)
    assert run([validate, "--strict", "-k", VERSIONS[1], str(tmp_path / "pod.yaml")]).returncode != 0


def test_limits_are_the_service(single: list[Object]) -> None:
    """All containers of the one-node overlay together have 30Gi and four cores, and ask for what they are limited to."""
    memory_bytes, cpu_milli = 0, 0
    for _, pod in pods(single):
        for each in pod["containers"]:
            resources = each["resources"]
            assert resources["requests"] == resources["limits"]
            memory_bytes += size_bytes(resources["limits"]["memory"])
            cpu_milli += milli(resources["limits"]["cpu"])
    assert (memory_bytes, cpu_milli) == (30 * 2**30, 4000)


def test_what_prepares_a_pod_takes_no_more_than_the_pod(single: list[Object]) -> None:
    """Kubernetes counts the larger of init containers and containers."""
    for _, pod in pods(single):
        rest = [c["resources"]["limits"] for c in pod["containers"]]
        for each in pod.get("initContainers", ()):
            assert size_bytes(each["resources"]["limits"]["memory"]) <= sum(size_bytes(c["memory"]) for c in rest)
            assert milli(each["resources"]["limits"]["cpu"]) <= sum(milli(c["cpu"]) for c in rest)


def test_one_gpu(single: list[Object]) -> None:
    """The engine gets one, and gives it back before its successor takes it."""
    assert container(single, "triton")["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert named(single, "Deployment", "triton")["spec"]["strategy"] == {"type": "Recreate"}


@pytest.mark.parametrize("build", [*BUILDS, "traced"])
def test_pods_have_no_rights(built: dict[str, list[Object]], build: str) -> None:
    """What Kubernetes' standard `restricted` asks for, and more: no root, no capability, nothing to write to but volumes, no
    token of the cluster."""
    for name, pod in pods(built[build]):
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in [*pod["containers"], *pod.get("initContainers", ())]:
            rights = each["securityContext"]
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert re.search(r":v?\d+\.\d+", each["image"]), "an image without a version"
            assert "limits" in each["resources"]
        kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "persistentVolumeClaim", "secret"}


def test_secrets_are_references(built: dict[str, list[Object]]) -> None:
    """No object brings a secret; what is secret is named, and not in the settings that both read."""
    for build in built.values():
        assert all(each["kind"] != "Secret" for each in build)
        for each in build:
            if each["kind"] == "ConfigMap":
                assert set(each["data"]).isdisjoint({"HERMES2_API_KEY", "HERMES2_SQL_URL"})
    frontend = container(built["base"], "frontend")
    secret = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in frontend["env"] if "valueFrom" in v}
    assert secret == {
        "HERMES2_API_KEY": {"name": "hermes2", "key": "api-key"},
        "HERMES2_SQL_URL": {"name": "hermes2", "key": "sql-url"},
    }
    assert {
        "name": "pepper",
        "mountPath": "/var/lib/hermes2/pepper",
        "subPath": "pepper",
        "readOnly": True,
    } in frontend["volumeMounts"]


@pytest.mark.parametrize("build", [*BUILDS[:3], "traced"])
def test_settings_are_settings(built: dict[str, list[Object]], build: str) -> None:
    """Every variable that looks like ours is one, with a value that is read."""
    data = next(each["data"] for each in built[build] if each["kind"] == "ConfigMap")
    frontend = {v["name"]: v.get("value", "x" * 32) for v in container(built[build], "frontend")["env"]}
    variables = {**data, **frontend}
    assert settings_module.unknown_variables(variables) == []
    settings = settings_module.load(variables)
    service = named(built[build], "Service", "triton")
    assert settings.triton.grpc_host == service["metadata"]["name"]
    assert {port["port"] for port in service["spec"]["ports"]} == {
        settings.triton.grpc_port,
        settings.triton.metrics_port,
    }
    assert settings.valkey.url == "valkey://valkey:6379/0"


def allowed(objects: list[Object], direction: str, component: str) -> set[tuple[str, int]]:
    """(peer, port) that the policies of a component open; "*": anybody."""
    found = set()
    for each in objects:
        if each["kind"] != "NetworkPolicy":
            continue
        chosen = each["spec"]["podSelector"]
        names = {chosen.get("matchLabels", {}).get("app.kubernetes.io/component")}
        for expression in chosen.get("matchExpressions", ()):
            names |= set(expression["values"])
        if component in names:
            for rule in each["spec"].get(direction, ()):
                for peer in rule.get("from" if direction == "ingress" else "to", [{}]):
                    labels: dict[str, str] = {}
                    for selector in peer.values():
                        labels |= selector["matchLabels"]
                    found |= {(next(iter(labels.values()), "*"), port["port"]) for port in rule["ports"]}
    return found


def test_triton_is_private(single: list[Object]) -> None:
    """The engine hears the frontend and reaches nobody; of all pods, only the frontend can be spoken to from elsewhere."""
    assert allowed(single, "ingress", "engine") == {("frontend", 8001), ("frontend", 8002)}
    assert allowed(single, "egress", "engine") == set()
    assert allowed(single, "ingress", "valkey") == {("frontend", 6379)}
    assert allowed(single, "egress", "valkey") == set()
    assert allowed(single, "ingress", "postgresql") == {("frontend", 5432)}
    assert allowed(single, "egress", "postgresql") == set()
    assert allowed(single, "ingress", "frontend") == {("*", 11401)}
    names = {("kube-system", 53)}
    assert allowed(single, "egress", "frontend") == names | {
        ("engine", 8001),
        ("engine", 8002),
        ("valkey", 6379),
        ("postgresql", 5432),
    }
    closed = named(single, "NetworkPolicy", "closed")["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_an_external_postgresql_can_be_reached(built: dict[str, list[Object]]) -> None:
    """Without the component the frontend may speak to any address, on PostgreSQL's port alone."""
    assert ("*", 5432) in allowed(built["overlays/scaled"], "egress", "frontend")
    assert {peer for peer, port in allowed(built["overlays/scaled"], "egress", "frontend") if port != 5432} == {
        "engine",
        "valkey",
        "kube-system",
    }


def test_services_find_pods(built: dict[str, list[Object]]) -> None:
    """Every selector fits the labels of exactly one kind of pod, and every port that is named exists there."""
    for build in built.values():
        labels = {
            each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
            for each in build
            if "template" in each.get("spec", {})
        }
        for each in build:
            if each["kind"] == "Service":
                wanted = each["spec"]["selector"].items()
                chosen = [name for name, its in labels.items() if wanted <= its.items()]
                assert chosen == [each["metadata"]["name"]]
                ports = {p["name"] for c in dict(pods(build))[chosen[0]]["containers"] for p in c["ports"]}
                assert {port["targetPort"] for port in each["spec"]["ports"]} <= ports


def test_probes_are_the_services_own(single: list[Object]) -> None:
    """Live, startup and ready have their routes; the start waits as long as the engine may load."""
    frontend = container(single, "frontend")
    for probe, path in (("livenessProbe", "live"), ("startupProbe", "startup"), ("readinessProbe", "ready")):
        assert frontend[probe]["httpGet"] == {"path": f"/health/{path}", "port": "http"}
    assert patience_s(frontend["startupProbe"]) >= DEFAULTS.engine.start_timeout_s
    engine = container(single, "triton")
    watch = container(single, "triton", "watch")
    port = int(watch["args"][-1])
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert engine[probe]["httpGet"] == {"path": "/", "port": port}
        assert engine[probe]["timeoutSeconds"] > 8  # deploy.containers.watch
    assert patience_s(engine["startupProbe"]) >= DEFAULTS.engine.start_timeout_s
    assert patience_s(engine["livenessProbe"]) > 4 * DEFAULTS.engine.hang_timeout_s


def test_nothing_is_killed_while_it_drains(single: list[Object]) -> None:
    """The grace of a pod is longer than preStop and drain together."""
    by_name = dict(pods(single))
    pre_stop_s = int(container(single, "frontend")["lifecycle"]["preStop"]["exec"]["command"][1])
    assert by_name["frontend"]["terminationGracePeriodSeconds"] >= pre_stop_s + DEFAULTS.http.drain_timeout_s + 5
    exits = [a for a in container(single, "triton")["args"] if a.startswith("--exit-timeout-secs=")]
    exit_s = int(exits[0].partition("=")[2])
    assert by_name["triton"]["terminationGracePeriodSeconds"] > exit_s > DEFAULTS.engine.drain_timeout_s


def test_engine_and_valkey_are_those_of_compose(single: list[Object]) -> None:
    """The same images and arguments: closed doors, rights, bounds; what compose has tested holds here."""
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    for name in ("triton", "valkey"):
        assert container(single, name)["image"] == services[name]["image"]
        assert container(single, name)["args"] == services[name]["command"]
    assert f"--grpc-restricted-protocol={RESTRICTED}:{CLOSED}=closed" in container(single, "triton")["args"]
    assert set(OFF) <= set(container(single, "triton")["args"])
    assert set(ALLOWED) <= set(container(single, "valkey")["args"])


def test_autoscaler_shares_the_engine(built: dict[str, list[Object]]) -> None:
    """However many frontends there are, they never give the engine more choices than it decodes; the autoscaler counts them,
    by queue time, and asks for a metric that the adapter's rule makes from one of ours."""
    objects = built["overlays/scaled"]
    scaler = named(objects, "HorizontalPodAutoscaler", "frontend")["spec"]
    scaling = shares.read().scaling
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (scaling.least, scaling.most)
    data = next(each["data"] for each in objects if each["kind"] == "ConfigMap")
    assert int(data["HERMES2_ADMISSION_SLOTS"]) * scaling.most <= DEFAULTS.engine.max_num_seqs
    assert "replicas" not in named(objects, "Deployment", "frontend")["spec"]
    metric = next(m["pods"]["metric"]["name"] for m in scaler["metrics"] if m["type"] == "Pods")
    adapter = yaml.safe_load((KUBERNETES / "components/autoscaling/prometheus-adapter.yaml").read_text())
    rule = next(rule for rule in adapter["rules"]["custom"] if rule["name"]["as"] == metric)
    assert "hermes2_admission_wait_seconds_sum" in rule["metricsQuery"]


def test_the_adapters_query_is_promql(tmp_path: Path) -> None:
    """With the adapter's own words filled in, Prometheus understands it."""
    adapter = yaml.safe_load((KUBERNETES / "components/autoscaling/prometheus-adapter.yaml").read_text())
    query = adapter["rules"]["custom"][0]["metricsQuery"]
    query = query.replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="hermes2",pod=~"a|b"')
    assert "<<" not in query
    rule = {"groups": [{"name": "adapter", "rules": [{"record": "queue_time", "expr": query}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule))
    done = promtool("check", "rules", tmp_path / "rules.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_frontend_can_be_moved(single: list[Object]) -> None:
    """The disruption budget lets a node be drained, one frontend at a time, also where there is only one."""
    budget = named(single, "PodDisruptionBudget", "frontend")["spec"]
    assert budget["maxUnavailable"] == 1
    assert (
        budget["selector"]["matchLabels"].items()
        <= named(single, "Deployment", "frontend")["spec"]["template"]["metadata"]["labels"].items()
    )


def test_prometheus_finds_the_service(built: dict[str, list[Object]]) -> None:
    """The ServiceMonitor fits the frontend's service, names its port and calls the job as deploy/prometheus does."""
    objects = built["overlays/scaled"]
    monitor = named(objects, CUSTOM, "hermes2")["spec"]
    service = named(objects, "Service", "frontend")
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= {p["name"] for p in service["spec"]["ports"]}
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "hermes2"


def test_spans_leave_with_the_component(built: dict[str, list[Object]]) -> None:
    """With `tracing`, and only then, both parts know a collector and may speak to it."""
    traced, single = built["traced"], built["overlays/single-node"]
    for part in ("frontend", "triton"):
        assert container(traced, part)["envFrom"][0]["configMapRef"]["name"].startswith("hermes2-settings")
    for component in ("frontend", "engine"):
        assert ("observability", 4318) in allowed(traced, "egress", component)
        assert ("observability", 4318) not in allowed(single, "egress", component)
    data = next(each["data"] for each in traced if each["kind"] == "ConfigMap")
    assert data["OTEL_EXPORTER_OTLP_ENDPOINT"].endswith(".observability:4318")
