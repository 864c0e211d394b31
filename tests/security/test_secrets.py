"""Canaries: secrets and private texts go through the real service, and are then looked for wherever they must not be."""

from __future__ import annotations

import base64
import contextlib
import secrets
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from tests.security.test_triton_doors import restriction
from tests.support.stack import API_KEY, Stack

pytestmark = pytest.mark.real

CHAT = "/v1/chat/completions"


class Left(msgspec.Struct, frozen=True):
    """What was sent."""

    keys: Mapping[str, str]
    """Whole keys, by what they are: none may be anywhere."""
    unstored: str
    """In prompts with `store` false, and in requests that were refused."""
    stored: str
    """In a conversation, a stored completion and a file: in SQL and in Valkey's windows, nowhere else."""
    pepper: bytes
    last_request_id: str
    """Whose log line is the last."""


class Places(msgspec.Struct, frozen=True):
    log: bytes
    metrics: bytes
    commands: bytes
    database: bytes
    valkey: bytes


@pytest.fixture(scope="module")
def left(scripted_stack: Stack) -> Left:
    """A key is made, used, rotated and revoked; texts are sent by every way that there is; keys that are none are tried."""
    unstored, stored = f"canary{secrets.token_hex(12)}", f"canary{secrets.token_hex(12)}"
    with httpx.Client(base_url=scripted_stack.url, headers=bearer(API_KEY), timeout=20) as http:
        admin = {"tenant": "canaries", "scopes": ["admin"], "name": "canary"}
        minted = http.post("/v1/admin/keys", json=admin).raise_for_status().json()
        rotated = http.post(f"/v1/admin/keys/{minted['api_key']['id']}/rotate", json={}).raise_for_status().json()
        keys = {"minted": minted["key"], "rotated": rotated["key"], "bootstrap": API_KEY}
        for key in (minted["key"], rotated["key"]):
            keep(http, bearer(key), stored)
            pass_through(http, bearer(key), unstored)
        http.post(f"/v1/admin/keys/{rotated['api_key']['id']}/revoke", json={}).raise_for_status()
        wrong = minted["key"][:-8] + "A" * 8, "wrong-" + secrets.token_urlsafe(32)
        for number, key in enumerate(wrong):
            assert http.get("/v1/models", headers=bearer(key)).status_code == 401
            assert http.get("/v1/models", headers={"authorization": f"Basic {key}"}).status_code == 401
            assert http.get(f"/v1/models?api_key={key}", headers={"authorization": ""}).status_code == 401
            keys[f"wrong {number}"] = key
        last = http.get("/v1/models").headers["x-request-id"]
    pepper = (scripted_stack.home / "pepper").read_bytes()
    return Left(keys=keys, unstored=unstored, stored=stored, pepper=pepper, last_request_id=last)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def keep(http: httpx.Client, headers: dict[str, str], text: str) -> None:
    conversation = (
        http.post("/v1/conversations", json={"items": [said(text)]}, headers=headers).raise_for_status().json()
    )
    in_it = {"conversation": conversation["id"], "max_tokens": 2}
    http.post(CHAT, json=asked(text, store=True, metadata={"a": text}, **in_it), headers=headers).raise_for_status()
    http.post(
        "/v1/responses", json={"model": "hermes-2", "input": text, "max_output_tokens": 2}, headers=headers
    ).raise_for_status()
    form = {"file": (f"{text}.txt", text.encode())}
    http.post("/v1/files", data={"purpose": "assistants"}, files=form, headers=headers).raise_for_status()


def pass_through(http: httpx.Client, headers: dict[str, str], text: str) -> None:
    """What is answered and not kept, and what is refused."""
    http.post(CHAT, json=asked(text, user=text, max_tokens=2), headers=headers).raise_for_status()
    http.post(CHAT, json=asked(text, stream=True, max_tokens=2), headers=headers).raise_for_status()
    unstored = {"model": "hermes-2", "input": text, "instructions": text, "store": False, "max_output_tokens": 2}
    http.post("/v1/responses", json=unstored, headers=headers).raise_for_status()
    http.post("/v1/responses", json=unstored | {"stream": True}, headers=headers).raise_for_status()
    http.post("/v1/completions", json={"model": "hermes-2", "prompt": text, "max_tokens": 2}, headers=headers)
    for body in (
        asked(text, n=1000),
        asked(text, **{text: 1}),
        asked(text, model=text),
        asked(text, conversation=text),
    ):
        assert 400 <= http.post(CHAT, json=body, headers=headers).status_code < 500
    assert http.post(CHAT, content=f'{{"model": {text}', headers=headers).status_code == 400
    assert http.get(f"/v1/conversations/{text}?after={text}", headers=headers).status_code == 404
    assert http.get(f"/{text}", headers=headers).status_code == 404
    assert http.get("/v1/models", headers=headers | {"user-agent": text, "cookie": text, "referer": text}).is_success
    traced = {
        "traceparent": text,
        "tracestate": f"of={text}",
        "baggage": f"of={text}",
        "x-request-id": f"{text} {text}",
    }
    assert http.get("/v1/models", headers=headers | traced).is_success
    gone = http.post("/v1/responses", json=unstored | {"store": True, "model": text}, headers=headers)
    assert gone.status_code == 404


def said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def asked(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "hermes-2", "messages": [said(text)]} | fields


@pytest.fixture(scope="module")
def places(scripted_stack: Stack, left: Left) -> Places:
    """All that the service has written or shows, after it."""
    scripted_stack.wait_for(left.last_request_id, 10)
    metrics = httpx.get(f"{scripted_stack.url}/metrics", headers=bearer(API_KEY)).raise_for_status().content
    return Places(
        log=scripted_stack.log.encode(),
        metrics=metrics,
        commands=b"\n".join(" ".join(each.cmdline()).encode() for each in scripted_stack.family()),
        database=b"\n".join(path.read_bytes() for path in sorted(scripted_stack.home.glob("hermes2.db*"))),
        valkey=b"\n".join(memory(scripted_stack.find("valkey"))),
    )


def memory(process: psutil.Process) -> Iterator[bytes]:
    """All that a process has written into its memory: more than its keys, which its rights let nobody list."""
    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    with Path(f"/proc/{process.pid}/mem").open("rb") as file:
        for line in maps:
            addresses, rights, *rest = line.split()
            if rights.startswith("rw") and not rest[-1].startswith("[v"):
                start, end = (int(address, 16) for address in addresses.split("-"))
                file.seek(start)
                yield file.read(end - start)


def forms(secret: bytes) -> Iterator[bytes]:
    """As it is, and as people print bytes."""
    yield secret
    yield secret.hex().encode()
    yield base64.b64encode(secret)
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")


@pytest.mark.parametrize("place", Places.__struct_fields__)
def test_no_key_is_anywhere(left: Left, places: Places, place: str) -> None:
    """Neither a whole key nor its secret part nor the pepper: in no log line, metric, command line, row and hot state."""
    content: bytes = getattr(places, place)
    for what, key in left.keys.items():
        for part in {key, key.split("_", 2)[2][:40], key[20:50]} if key.startswith("hm2_") else {key}:
            for form in forms(part.encode()):
                assert form not in content, f"{what} in {place}"
    for form in forms(left.pepper):
        assert form not in content, f"the pepper in {place}"


@pytest.mark.parametrize("place", Places.__struct_fields__)
def test_what_is_not_kept_is_nowhere(left: Left, places: Places, place: str) -> None:
    """Prompts with `store` false, prompts that were refused, and what stood in paths, queries and headers."""
    assert left.unstored.encode() not in getattr(places, place)


@pytest.mark.parametrize("place", ["log", "metrics", "commands"])
def test_what_is_kept_is_told_to_nobody(left: Left, places: Places, place: str) -> None:
    """Prompts, metadata, names and contents of files are in SQL, and in no line of a log."""
    assert left.stored.encode() in places.database
    assert left.stored.encode() in places.valkey
    assert left.stored.encode() not in getattr(places, place)


def test_tritons_secret_is_of_no_use(scripted_stack: Stack, places: Places) -> None:
    """What stands on Triton's command line is nowhere else, and opens nothing (test_triton_doors)."""
    header, value = restriction(scripted_stack)
    assert " " in header
    for place in ("log", "metrics", "database", "valkey"):
        assert value.encode() not in getattr(places, place)


def test_secrets_in_files_are_the_owners(scripted_stack: Stack, left: Left) -> None:
    """Pepper, database and socket can be read by the service's user alone."""
    (socket,) = scripted_stack.home.rglob("valkey*.sock")
    for path in (scripted_stack.home / "pepper", socket, *scripted_stack.home.glob("hermes2.db*")):
        assert path.stat().st_mode & 0o077 == 0, f"{path} has the mode {path.stat().st_mode:o}"


def test_a_stored_hash_is_no_key(scripted_stack: Stack, left: Left) -> None:
    """Who has read the database gets in by nothing that stands there."""
    with contextlib.closing(
        sqlite3.connect(f"file:{scripted_stack.home / 'hermes2.db'}?mode=ro", uri=True)
    ) as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(api_keys)")]
        rows = [dict(zip(names, row, strict=True)) for row in database.execute("SELECT * FROM api_keys")]
    assert len(rows) >= 2
    with httpx.Client(base_url=scripted_stack.url) as http:
        for row in rows:
            kept = [value for value in row.values() if isinstance(value, bytes) and value]
            assert kept
            for form in {
                form for value in kept for form in forms(value) if form.isascii() and form.decode().isprintable()
            }:
                for key in (form.decode(), f"hm2_{row['id']}_{form.decode()}"):
                    assert http.get("/v1/models", headers=bearer(key)).status_code == 401
