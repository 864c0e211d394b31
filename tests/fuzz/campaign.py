"""Rounds of schemathesis against a running service, each with a seed of its own, and what they found."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec

from frontend.settings import ROOT
from tests.support.stack import API_KEY, CLIENTS, Stack

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""All but `positive_data_acceptance`, since rules between fields are no part of a schema, and those about created things."""


class TestCases(msgspec.Struct, frozen=True):
    generated: int


class Report(msgspec.Struct, frozen=True):
    """What we read of schemathesis's own report."""

    seed: int
    running_time: float
    """Seconds."""
    test_cases: TestCases

    def line(self) -> str:
        cases = self.test_cases.generated
        return f"seed {self.seed}: {cases} cases, {cases / self.running_time:.0f}/s"


class Found(Exception):
    """The words of schemathesis, with a command that repeats each failure."""


@contextmanager
def service(home: Path) -> Iterator[Stack]:
    """The real stack with the scripted engine, whose answers are short, and a small window; the embedding model is the real one.

    Raises Found in the end if one of its processes is not the one that was started.
    """
    plans = home.with_name("plans.toml")
    plans.write_text("[plans.default]\n")  # no limits: thousands of requests a minute come from one key
    with Stack(
        home,
        LIMITS_PLANS=plans,
        ENGINE_BACKEND="scripted",
        ENGINE_SCRIPTED_REPLIES=Path(__file__).parent / "replies.json",
        ENGINE_SCRIPTED_TOKEN_INTERVAL_MS=0.01,
        ENGINE_MAX_MODEL_LEN=256,
        EMBEDDER_ENABLED="true",
        LOG_LEVEL="warning",
    ) as stack:
        started = {process.pid for process in stack.family()}
        yield stack
        if started != {process.pid for process in stack.family()}:
            raise Found(f"a process of the service has died:\n{stack.log}")


def run(stack: Stack, folder: Path, seed: int, seconds: int) -> Report:
    """One round of at most `seconds`. Raises Found, or the log's last lines if schemathesis itself fails."""
    report = folder / f"report-{seed}.json"
    command = [
        *(str(CLIENTS / "bin/st"), "run", f"{stack.url}/schema/openapi.json"),
        *("--header", f"Authorization: Bearer {API_KEY}", "--output-sanitize", "false"),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("--seed", str(seed), "--max-time", str(seconds), "--continue-on-failure", "--generation-database", "none"),
        *("--report", "json", "--report-json-path", str(report), "--no-color"),
    ]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    environment["SCHEMATHESIS_HOOKS"] = "tests.fuzz.hooks"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Found(f"seed {seed}\n{done.stdout}{done.stderr}")
    return msgspec.json.decode(report.read_bytes(), type=Report)


def answers(stack: Stack) -> dict[int, int]:
    """How often the service has answered a POST with each status."""
    text = httpx.get(f"{stack.url}/metrics", headers={"authorization": f"Bearer {API_KEY}"}).text
    counts: dict[int, int] = {}
    for status, count in re.findall(
        r'^hermes2_http_requests_total\{method="POST",.*status="(\d+)"\} (\S+)$', text, re.M
    ):
        counts[int(status)] = counts.get(int(status), 0) + int(float(count))
    return counts


def run_until(stack: Stack, folder: Path, seed: int, cases: int, seconds: int, tell: Callable[[str], None]) -> int:
    """Rounds with seed, seed + 1, ... until so many cases have been tried; their number. Raises Found at the first failure."""
    tried = 0
    while tried < cases:
        report = run(stack, folder, seed, seconds)
        tried += report.test_cases.generated
        seed += 1
        tell(f"{report.line()}; {tried} of {cases}; POSTs by status so far: {answers(stack)}")
    return tried
