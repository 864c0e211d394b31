"""kill -9 at random moments of turns: what was acknowledged is there, once and whole, and nothing is left running.

HERMES2_KILLS says how often (4); `make crashes` does it 200 times.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil

from tests.support.app import HEADERS
from tests.support.stack import Stack

KILLS = int(os.environ.get("HERMES2_KILLS", "4"))
WRITERS = 4
LONGEST_PAUSE_S = 0.4
"""Between the service's return and the next kill: several turns."""
ENDS = ("response.completed", "response.incomplete")


class Acknowledged(msgspec.Struct, frozen=True):
    question: str
    response_id: str
    answer: str


class Writer:
    """Says one thing after the other in a conversation of its own, and tries again what was not acknowledged."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.name = name
        self.acknowledged: list[Acknowledged] = []
        self.seen: set[str] = set()
        """Every response that was announced."""
        self.failures: Counter[str] = Counter()
        self.stop = threading.Event()
        self._http = httpx.Client(
            base_url=stack.url, headers=HEADERS, timeout=20, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self.conversation: str = self._http.post("/v1/conversations", json={}).json()["id"]
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number in itertools.count():
            for attempt in itertools.count():
                if self.stop.is_set():
                    return
                if self._turn(f"{self.name}: number {number}, attempt {attempt}"):
                    break
                time.sleep(0.03)

    def _turn(self, question: str) -> bool:
        body = {"model": "hermes-2", "input": question, "conversation": self.conversation, "max_output_tokens": 12}
        if random.random() < 0.3:  # noqa: S311  # no secret
            return self._whole(question, body)
        try:
            with self._http.stream("POST", "/v1/responses", json=body | {"stream": True}) as reply:
                if reply.status_code != 200:
                    self.failures[f"{reply.status_code} {json.loads(reply.read())['error']['code']}"] += 1
                    return False
                for line in reply.iter_lines():
                    if line.startswith("data: {") and self._event(question, json.loads(line[6:])):
                        return True
        except httpx.HTTPError as exc:
            self.failures[type(exc).__name__] += 1
        return False

    def _event(self, question: str, event: dict[str, Any]) -> bool:
        if event["type"] == "response.created":
            self.seen.add(event["response"]["id"])
        if event["type"] in ENDS:
            self._acknowledge(question, event["response"])
            return True
        return False

    def _whole(self, question: str, body: dict[str, Any]) -> bool:
        try:
            reply = self._http.post("/v1/responses", json=body)
        except httpx.HTTPError as exc:
            self.failures[type(exc).__name__] += 1
            return False
        if reply.status_code != 200:
            self.failures[f"{reply.status_code} {reply.json()['error']['code']}"] += 1
            return False
        self._acknowledge(question, reply.json())
        return True

    def _acknowledge(self, question: str, response: dict[str, Any]) -> None:
        self.acknowledged.append(Acknowledged(question, response["id"], response["output"][0]["content"][0]["text"]))

    def items(self) -> list[dict[str, Any]]:
        """All of the conversation, oldest first."""
        items: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            url = f"/v1/conversations/{self.conversation}/items"
            page = self._http.get(url, params={"order": "asc", "limit": 100, **after}).raise_for_status().json()
            items += page["data"]
            if not page["has_more"]:
                return items
            after = {"after": page["last_id"]}

    def check(self) -> None:
        said = [(item["role"], item["content"][0]["text"]) for item in self.items()]
        assert [role for role, _ in said] == ["user", "assistant"] * (len(said) // 2), "a turn is half there"
        turns = dict(zip([text for _, text in said[::2]], [text for _, text in said[1::2]], strict=True))
        assert len(turns) == len(said) // 2, "a turn is there twice"
        for each in self.acknowledged:
            assert turns[each.question] == each.answer
        order = [question for question in turns if question in {each.question for each in self.acknowledged}]
        assert order == [each.question for each in self.acknowledged]
        for response_id in self.seen | {each.response_id for each in self.acknowledged}:
            reply = self._http.get(f"/v1/responses/{response_id}").raise_for_status().json()
            assert reply["status"] not in ("queued", "in_progress")


def frontends(stack: Stack) -> list[psutil.Process]:
    """Granian's workers."""
    master = next(p for p in stack.family() if "granian" in " ".join(p.cmdline()))
    return [child for child in master.children() if "resource_tracker" not in " ".join(child.cmdline())]


def kill_one(stack: Stack, kills: Counter[str]) -> None:
    """A frontend's worker four times out of five, else Valkey."""
    try:
        if random.random() < 0.8:  # noqa: S311  # no secret
            random.choice(frontends(stack)).kill()  # noqa: S311
            kills["frontend"] += 1
        else:
            next(p for p in stack.family() if p.name().startswith("valkey")).kill()
            kills["valkey"] += 1
    except (psutil.NoSuchProcess, StopIteration, IndexError):
        kills["was away"] += 1


def wait_until_up(stack: Stack) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{stack.url}/health/ready", timeout=2).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)
    raise AssertionError("the service did not come back:\n" + "\n".join(stack.lines[-40:]))


def running_responses(stack: Stack) -> int:
    with sqlite3.connect(stack.home / "hermes2.db") as database:
        query = "SELECT (SELECT count(*) FROM turns) + (SELECT count(*) FROM responses WHERE status IN (?, ?))"
        return int(database.execute(query, ("queued", "in_progress")).fetchone()[0])


def test_no_turn_is_lost_doubled_or_half_there(tmp_path: Path) -> None:
    """Of 4 writers on 2 frontends, whatever dies."""
    kills: Counter[str] = Counter()
    with Stack(tmp_path, WORKERS=2, ENGINE_BACKEND="scripted", ENGINE_SCRIPTED_TOKEN_INTERVAL_MS=10) as stack:
        writers = [Writer(stack, f"writer {i}") for i in range(WRITERS)]
        for writer in writers:
            writer.thread.start()
        try:
            while kills["frontend"] + kills["valkey"] < KILLS:
                time.sleep(random.uniform(0, LONGEST_PAUSE_S))  # noqa: S311
                kill_one(stack, kills)
                wait_until_up(stack)
        finally:
            for writer in writers:
                writer.stop.set()
            for writer in writers:
                writer.thread.join()
        wait_until_up(stack)
        deadline = time.monotonic() + 30
        while running_responses(stack):
            assert time.monotonic() < deadline, "a response was left running"
            time.sleep(0.1)
        for writer in writers:
            writer.check()
        print(
            f"{dict(kills)}; {sum(len(w.acknowledged) for w in writers)} turns acknowledged,"
            f" {dict(sum((w.failures for w in writers), Counter()))}"
        )
        assert sum(len(writer.acknowledged) for writer in writers) > KILLS
