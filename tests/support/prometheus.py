"""A real Prometheus and its promtool for tests: those on the PATH, or Debian's, unpacked beside other tools that are fetched."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
import yaml

from frontend.settings import ROOT
from perf.service import free_ports

PAGE = ROOT / "docs/monitoring.md"
CONFIG = ROOT / "deploy/prometheus/prometheus.yml"
RULES = ROOT / "deploy/prometheus/rules/hermes2.yml"
DASHBOARD = ROOT / "deploy/grafana/dashboards/hermes2.json"
TOOLS = ROOT / ".hermes2/tools/prometheus"
FETCH_TIMEOUT_S = 90.0


def program(name: str) -> Path:
    """`prometheus` or `promtool`. Skips the test, with the reason, where there is none to be had."""
    if (installed := shutil.which(name)) is not None:
        return Path(installed)
    found = fetched()
    if isinstance(found, str):
        pytest.skip(f"no {name} on the PATH, and Debian's could not be fetched: {found}")
    return found / name


@functools.cache
def fetched() -> Path | str:
    """The folder with Debian's two programs, or why there is none: that is tried once."""
    try:
        return unpacked()
    except (OSError, subprocess.SubprocessError) as exc:
        said = str(getattr(exc, "stderr", None) or exc).strip().splitlines()
        return said[-1] if said else repr(exc)


def unpacked() -> Path:
    """Raises OSError, CalledProcessError, TimeoutExpired.

    They are what the distribution's signed archive has today: apt checks the signature and the digests. A digest of ours
    would hold no longer than until the next security update, with which the archive drops the package that it is of.
    """
    with exclusive():
        if not TOOLS.exists():
            with TemporaryDirectory(dir=TOOLS.parent) as name:
                draft = Path(name)
                for each in ("prometheus", "promtool"):  # newer Debians have the second one in a package of its own
                    if not (draft / "root/usr/bin" / each).exists():
                        fetch(each, draft)
                        run(["dpkg-deb", "--extract", str(next(draft.glob(f"{each}_*.deb"))), "root"], draft)
                (draft / "root").rename(TOOLS)
        return TOOLS / "usr/bin"


def fetch(package: str, folder: Path) -> None:
    """Needs no root, and leaves the machine's own lists of packages as they are."""
    apt_get = ["apt-get", "-o", "APT::Sandbox::User=root"]
    try:
        run([*apt_get, "download", package], folder)
    except subprocess.CalledProcessError:  # no lists, as in a fresh container, or outdated ones
        for needed in ("lists/partial", "cache/archives/partial"):
            (folder / needed).mkdir(parents=True, exist_ok=True)
        apt_get += ["-o", f"Dir::State::Lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]
        run([*apt_get, "update"], folder)
        run([*apt_get, "download", package], folder)


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Two runs of the tests on one checkout do not fetch at the same time."""
    TOOLS.parent.mkdir(parents=True, exist_ok=True)
    with TOOLS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(
        command, cwd=folder, env=environment, check=True, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S
    )


def promtool(*arguments: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """What it says, and its exit status; `text` is its standard input."""
    command = [str(program("promtool")), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)


def rules() -> list[dict[str, Any]]:
    """Every rule of the file, recording and alerting, in its order."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[dict[str, Any]]:
    """Those of the dashboard, without the heads of rows."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> dict[str, str]:
    """What each panel asks, by its title and the letter of the query, without the interval that Grafana puts in."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "1m")
        for panel in panels()
        for target in panel["targets"]
    }


def names(expression: str) -> set[str]:
    """The metrics that a PromQL expression reads."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', " ", expression)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"(?<![\w:.])([A-Za-z_:][\w:]*)(?!\s*\(|[\w:])", bare)
    return set(words) - {"and", "or", "unless", "offset", "bool"}


class Prometheus:
    """A running one. Raises what httpx raises."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30)

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` of a reply of its API."""
        reply = self._http.get(f"/api/v1/{path}", params=parameters)
        assert reply.status_code == 200, reply.text
        return reply.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, now."""
        result: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return result

    def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire, by their names."""
        return {a["labels"]["alertname"]: a for a in self.get("alerts")["alerts"] if a["state"] == "firing"}

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self._http.get("/-/ready").status_code == 200
        return False

    def close(self) -> None:
        self._http.close()


@contextlib.contextmanager
def running(folder: Path, target: str, key: str, intervals: Mapping[str, str] | None = None) -> Iterator[Prometheus]:
    """Prometheus with the configuration of deploy/prometheus, which scrapes `target` every second.

    `intervals`: another `for` of alerts, by their names, in a copy of the rules.
    """
    (folder / "key").write_text(key)
    config = yaml.safe_load(CONFIG.read_text())
    config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(folder / "rules.yml")]
    (job,) = config["scrape_configs"]
    job["authorization"]["credentials_file"] = str(folder / "key")
    job["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    ours = yaml.safe_load(RULES.read_text())
    for group in ours["groups"]:
        for rule in group["rules"]:
            if (shorter := (intervals or {}).get(rule.get("alert", ""))) is not None:
                rule["for"] = shorter
    (folder / "rules.yml").write_text(yaml.safe_dump(ours))
    (port,) = free_ports(1)
    with (folder / "prometheus.log").open("w") as output:
        process = subprocess.Popen(
            [
                str(program("prometheus")),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        until = time.monotonic() + 30
        while not prometheus.is_ready():
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield prometheus
    finally:
        prometheus.close()
        process.kill()
        process.wait()
