"""A real Prometheus at the running service: what panels and alerts speak of exists, and an alert comes and goes with a fault."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import openai
import psutil
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.app import HEADERS
from tests.support.prometheus import PAGE, Prometheus, expressions, names, promtool, rules, running
from tests.support.stack import API_KEY, Stack

pytestmark = pytest.mark.real

PROMETHEUS_OWN = {"up", "ALERTS"}
"""What it adds to what it scrapes."""
ON_DEMAND = {"Failures by route A"}
"""Empty on a healthy service, although what it reads is there."""


def eventually(holds: Callable[[], object], timeout_s: float = 30) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0, timeout=120) as sdk:
        yield sdk


def ask(client: openai.OpenAI) -> None:
    """One reply as a stream and one as a whole."""
    for stream in (True, False):
        reply: Any = client.chat.completions.create(
            model="hermes-2", messages=[{"role": "user", "content": "Hello."}], max_tokens=8, stream=stream
        )
        assert list(reply) if stream else reply.usage.completion_tokens


def search(client: openai.OpenAI) -> None:
    """A file on its way into a store, and a search there."""
    file = client.files.create(file=("a.txt", b"Paris is the capital of France."), purpose="assistants")
    store = client.vector_stores.create(name="monitored")
    client.vector_stores.files.create_and_poll(vector_store_id=store.id, file_id=file.id, poll_interval_ms=100)
    assert client.vector_stores.search(store.id, query="What is the capital of France?").data
    client.vector_stores.delete(store.id)
    client.files.delete(file.id)


def scrape(stack: Stack) -> str:
    return httpx.get(f"{stack.url}/metrics", headers=HEADERS).text


@pytest.fixture(scope="module")
def prometheus(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """It scrapes the real service. It begins with that five seconds after its start, so one has to do for all tests."""
    folder = tmp_path_factory.mktemp("prometheus")
    with running(folder, stack.url.removeprefix("http://"), API_KEY, {"Hermes2ValkeyDown": "1s"}) as started:
        yield started
        log = (folder / "prometheus.log").read_text()
        assert "different value but same timestamp" not in log
        assert "out of order" not in log.lower()


@pytest.fixture(scope="module")
def families(stack: Stack, client: openai.OpenAI, prometheus: Prometheus) -> dict[str, Metric]:
    """Of one scrape of the real service that has done a little of everything."""
    ask(client)
    search(client)
    parsed = list(text_string_to_metric_families(scrape(stack)))
    assert len({family.name for family in parsed}) == len(parsed)
    return {family.name: family for family in parsed}


def sample_names(family: Metric) -> Iterator[str]:
    """Every name that its samples can have, whether there are some now or not."""
    endings = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total", ""), "summary": ("_sum", "_count", "")}
    return (family.name + ending for ending in endings.get(family.type, ("",)))


def test_every_metric_exists(families: dict[str, Metric]) -> None:
    """Whatever a rule or a panel reads is in one scrape of the real service, or recorded from that."""
    known = {name for family in families.values() for name in sample_names(family)}
    known |= {sample.name for family in families.values() for sample in family.samples}
    known |= {rule["record"] for rule in rules() if "record" in rule}
    read = {name for each in (*expressions().values(), *(rule["expr"] for rule in rules())) for name in names(each)}
    assert read - known - PROMETHEUS_OWN == set()


def test_the_page_has_every_metric_of_ours(families: dict[str, Metric]) -> None:
    """docs/monitoring.md lists the service's own metrics, all of them and no others, each with its type and its labels."""
    rows = re.findall(r"(?m)^\| `(hermes2_\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text())
    listed = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    ours = {name: family for name, family in families.items() if name.startswith("hermes2_") and not is_birth(name)}
    assert {name.removesuffix("_total") for name in listed} == set(ours)
    for name, (kind, labels) in listed.items():
        family = ours[name.removesuffix("_total")]
        assert kind == family.type, name
        assert name.endswith("_total") == (kind == "counter"), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, name


def test_the_page_names_no_metric_that_is_not_there(families: dict[str, Metric]) -> None:
    """Of vLLM and Triton it explains the most useful ones; those of a GPU are marked and can only be seen on one."""
    listed = set(re.findall(r"(?m)^\| `((?:vllm:|nv_)\w+)` \| (?!GPU)", PAGE.read_text()))
    known = {name for family in families.values() for name in (family.name, *sample_names(family))}
    assert listed
    assert listed - known == set()


def test_matched_labels_have_such_values(families: dict[str, Metric]) -> None:
    """A rule or panel that picks one outcome, kind or dependency picks one that there is, or that the page lists."""
    texts = [*expressions().values(), *(rule["expr"] for rule in rules())]
    picked = {match for each in texts for match in re.findall(r'(hermes2_\w+)\{[^}]*?(\w+)="([^"$]+)"', each)}
    assert len(picked) >= 10
    for name, label, value in picked:
        samples = families[name.removesuffix("_total")].samples
        row = re.search(rf"(?m)^\| `{name}` \|.*$", PAGE.read_text())
        listed = row is not None and f"`{value}`" in row[0]
        assert listed or value in {sample.labels.get(label) for sample in samples} or label == "status", (name, value)


def is_birth(name: str) -> bool:
    """A gauge beside each counter and histogram says when it began."""
    return name.endswith("_created")


def test_promtool_finds_no_fault_in_our_metrics(stack: Stack, families: dict[str, Metric]) -> None:
    """Names, types, units and help texts, by Prometheus' own lint; what vLLM and Triton call theirs is theirs."""
    done = promtool("check", "metrics", text=scrape(stack))
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if line.startswith("hermes2_") and not is_birth(line.split()[0])] == []
    assert not [line for line in said if "error while linting" in line]


def test_every_panel_shows_something(
    client: openai.OpenAI, families: dict[str, Metric], prometheus: Prometheus
) -> None:
    """Prometheus takes every sample, evaluates every rule, and has an answer to every panel whose metrics have a value."""
    eventually(lambda: prometheus.query("up == 1"))
    ask(client)
    begun = time.time()
    eventually(lambda: evaluated(prometheus, begun + 1))
    eventually(lambda: prometheus.query("0 < hermes2:request_duration_seconds:p95_rate5m < 60"))
    eventually(lambda: [target["health"] for target in prometheus.get("targets")["activeTargets"]] == ["up"])
    unwell = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"] if rule["health"] != "ok"]
    assert unwell == []
    assert prometheus.firing() == {}
    there = set(prometheus.get("label/__name__/values"))
    empty = {
        panel
        for panel, expression in expressions().items()
        if names(expression) <= there and not prometheus.query(expression.replace("$instance", ".*"))
    }
    assert empty - ON_DEMAND == set()


def evaluated(prometheus: Prometheus, since: float) -> bool:
    """Every group of rules, after that time."""
    groups = prometheus.get("rules")["groups"]
    return all(time_of(group["lastEvaluation"]) > since for group in groups)


def time_of(text: str) -> float:
    """RFC 3339 with more digits than Python takes."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)).timestamp()


def test_an_alert_fires_on_a_fault_and_goes_with_it(stack: Stack, prometheus: Prometheus) -> None:
    """Valkey is paused under the running service: Hermes2ValkeyDown fires, no other, and is over when Valkey goes on."""
    stopped: list[psutil.Process] = []
    found: dict[str, dict[str, Any]] = {}

    def fires() -> bool:
        """The launcher may take a paused Valkey for hung and start another: that one is paused too."""
        for process in stack.family():
            if process.name().startswith("valkey") and process.status() != psutil.STATUS_STOPPED:
                process.suspend()
                stopped.append(process)
        found.update(prometheus.firing())
        return bool(found)

    eventually(lambda: prometheus.query('hermes2_dependency_up{dependency="valkey"} == 1'))
    assert prometheus.firing() == {}
    try:
        eventually(fires)
    finally:
        for process in stopped:
            if process.is_running():
                process.resume()
    assert set(found) == {"Hermes2ValkeyDown"}
    alert = found["Hermes2ValkeyDown"]
    assert alert["labels"]["severity"] == "warning"
    assert alert["annotations"]["summary"] == f"{stack.url.removeprefix('http://')} does not reach Valkey"
    eventually(lambda: not prometheus.firing(), timeout_s=60)
    eventually(lambda: httpx.get(f"{stack.url}/health/ready").json()["valkey"] == "ok")
