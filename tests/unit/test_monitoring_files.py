"""The files of Prometheus and Grafana: each is what its own tool takes, and what is shown or alerted on is explained."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import warnings
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana import dashboard, page
from frontend.settings import ROOT, Settings
from tests.support.prometheus import CONFIG, DASHBOARD, PAGE, alerts, expressions, names, panels, promtool, rules

CASES = ROOT / "deploy/prometheus/tests/hermes2_test.yml"
PROVISIONING = ROOT / "deploy/grafana/provisioning"
TEXT = PAGE.read_text()
WRITTEN: dict[str, Any] = json.loads(DASHBOARD.read_text())


def config() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return read


class TestPrometheus:
    def test_takes_the_configuration(self, tmp_path: Path) -> None:
        """promtool has nothing to say about prometheus.yml, nor about the rules that it includes."""
        shutil.copytree(CONFIG.parent, tmp_path / "prometheus")
        (tmp_path / "key").write_text("the key")
        secret = config()["scrape_configs"][0]["authorization"]["credentials_file"]
        (tmp_path / "prometheus/prometheus.yml").write_text(CONFIG.read_text().replace(secret, str(tmp_path / "key")))
        done = promtool("check", "config", "--lint=all", "--lint-fatal", tmp_path / "prometheus/prometheus.yml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{len(rules())} rules found" in done.stdout

    def test_scrapes_the_service_where_it_is(self) -> None:
        """One job for everything, at the port of the settings, with a key that no file of the repository holds."""
        (job,) = config()["scrape_configs"]
        assert job["job_name"] == "hermes2"
        assert job["static_configs"] == [{"targets": [f"frontend:{Settings().port}"]}]
        assert job["authorization"] == {"credentials_file": "/run/secrets/hermes2-metrics-key"}

    def test_alerts_fire_on_their_faults_only(self) -> None:
        """The cases of hermes2_test.yml hold, by promtool."""
        done = promtool("test", "rules", CASES)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_every_alert_has_a_case(self) -> None:
        """Each one fires in one of them."""
        fired = set(re.findall(r"""labels: '\{alertname="(\w+)"\}'""", CASES.read_text()))
        assert fired == {alert["alert"] for alert in alerts()}

    def test_every_alert_says_what_to_do(self) -> None:
        """A severity, a summary, a description, and a section of the page that the alert leads to."""
        for alert in alerts():
            name, told = alert["alert"], alert["annotations"]
            assert alert["labels"]["severity"] in {"critical", "warning", "info"}, name
            assert told["summary"], name
            assert told["description"], name
            assert told["runbook_url"] == f"docs/monitoring.md#{name.lower()}"
        sections = re.findall(r"(?m)^### (Hermes2\w+)$", TEXT)
        assert sections == [alert["alert"] for alert in alerts()]

    def test_every_section_is_whole(self) -> None:
        """What it means, what it comes from, and what to do, for each alert."""
        sections = re.split(r"(?m)^### (?=Hermes2\w+$)", TEXT)[1:]
        for section in sections:
            for part in ("**Means.**", "**Causes.**", "**Do.**"):
                assert part in section, section.splitlines()[0]

    def test_recorded_series_are_defined_before_they_are_used(self) -> None:
        """By rules and by panels; a rule that is evaluated before what it reads is one interval behind."""
        known: set[str] = set()
        for rule in rules():
            assert {name for name in names(rule["expr"]) if name.startswith("hermes2:")} <= known
            known.add(rule.get("record", ""))
        used = {name for each in expressions().values() for name in names(each) if name.startswith("hermes2:")}
        assert used <= known


class TestDashboard:
    def test_file_is_as_it_is_written(self) -> None:
        """The committed JSON is what `python -m deploy.grafana` writes."""
        assert DASHBOARD.read_text() == dashboard.text()

    def test_page_has_every_panel(self) -> None:
        """docs/monitoring.md has the descriptions that Grafana shows."""
        assert page.text(TEXT) == TEXT

    def test_expressions_are_promql(self, tmp_path: Path) -> None:
        """Every one of them, by promtool."""
        recorded = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(expressions().values())]
        (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
        done = promtool("check", "rules", "--lint=none", tmp_path / "panels.yml")
        assert done.returncode == 0, done.stdout + done.stderr

    def test_panels_explain_themselves(self) -> None:
        """Each has a title of its own, a description, a unit and something to show, from the chosen Prometheus."""
        titles = [panel["title"] for panel in panels()]
        assert len(set(titles)) == len(titles)
        for panel in panels():
            assert panel["description"], panel["title"]
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["targets"], panel["title"]
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert sources == [dashboard.SOURCE] * len(sources)
        (variable,) = (each for each in WRITTEN["templating"]["list"] if each["type"] == "datasource")
        assert dashboard.SOURCE["uid"] == f"${{{variable['name']}}}"

    def test_panels_do_not_cover_each_other(self) -> None:
        """Numbers are unique, and each place of the grid of 24 columns belongs to one panel."""
        everything = WRITTEN["panels"]
        assert len({each["id"] for each in everything}) == len(everything)
        for one, other in combinations((each["gridPos"] for each in everything), 2):
            beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
            assert beside or above, (one, other)
        assert all(each["gridPos"]["x"] + each["gridPos"]["w"] <= 24 for each in everything)

    def test_grafana_knows_every_word(self) -> None:
        """Read into Grafana's own generated types and written again, nothing of the file is lost or changed."""
        if importlib.util.find_spec("grafana_foundation_sdk") is None:
            pytest.skip("the package grafana-foundation-sdk, which brings the schema, is not installed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it prefers the newer form, which older Grafanas do not read from files
            sdk = {
                name: importlib.import_module(f"grafana_foundation_sdk.{name}")
                for name in ("cog.encoder", "cog.plugins", "models.dashboard", "models.units")
            }
            sdk["cog.plugins"].register_default_plugins()
        known = sdk["models.dashboard"].Dashboard.from_json(WRITTEN)
        assert missing(WRITTEN, json.loads(sdk["cog.encoder"].JSONEncoder().encode(known))) == []
        assert known.schema_version == sdk["models.dashboard"].Dashboard().schema_version
        units = {unit for name, unit in vars(sdk["models.units"]).items() if not name.startswith("_")}
        ours = {panel["fieldConfig"]["defaults"]["unit"] for panel in panels()}
        assert {unit for unit in ours if not unit.startswith("suffix:")} <= units

    def test_provisioning_finds_prometheus_and_the_files(self) -> None:
        """The data source scrapes as often as prometheus.yml says, and dashboards are looked for where they are mounted."""
        (source,) = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
        assert source["type"] == "prometheus"
        assert source["jsonData"]["timeInterval"] == config()["global"]["scrape_interval"]
        (provider,) = yaml.safe_load((PROVISIONING / "dashboards/hermes2.yml").read_text())["providers"]
        assert provider["options"] == {"path": "/var/lib/grafana/dashboards"}


def missing(written: Any, read: Any, path: str = "") -> list[str]:
    """Paths of what is in `written` and not, or not the same, in `read`, which may have more."""
    if isinstance(written, dict) and isinstance(read, dict):
        return [each for key, value in written.items() for each in missing(value, read.get(key), f"{path}/{key}")]
    if isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        return [
            each for i, (a, b) in enumerate(zip(written, read, strict=True)) for each in missing(a, b, f"{path}/{i}")
        ]
    return [] if written == read else [f"{path}: {written!r} became {read!r}"]


def test_metrics_of_an_expression() -> None:
    """Functions, labels, strings, durations and words of the language are none."""
    expression = """
      histogram_quantile(0.95, sum by (job, le) (rate(a_bucket{route=~"/v1/(b|c)"}[5m]))) > scalar(d:e)
      or (x{status="500"} unless x offset 10m and on (job, instance) up offset 10m) / vllm:f:p95 * 1e6
    """
    assert names(expression) == {"a_bucket", "d:e", "x", "up", "vllm:f:p95"}
