"""Heads of replies, who the client is, and what pages of other origins may do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from frontend.http import body, cors
from frontend.http.proxies import Proxies
from frontend.settings import SettingsError
from tests.fakes.engine import FakeEngine
from tests.support.app import client_for

ORIGIN = "https://app.example.com"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
NO_KEY = {"authorization": ""}


async def test_every_reply_is_harmless_in_a_browser(smollm2: Path) -> None:
    """Good, wrong, unknown and public ones; none is kept by a cache, framed, guessed at, or told of elsewhere."""
    async with client_for(FakeEngine(), smollm2) as client:
        replies = [
            await client.get("/v1/models"),
            await client.get("/v1/models", headers=NO_KEY),
            await client.get("/nowhere"),
            await client.get("/health/live", headers=NO_KEY),
            await client.get("/schema/openapi.json"),
        ]
    assert [each.status_code for each in replies] == [200, 401, 404, 200, 200]
    for each in replies:
        assert each.headers["x-content-type-options"] == "nosniff"
        assert each.headers["cache-control"] == "no-store"
        assert each.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert each.headers["referrer-policy"] == "no-referrer"
        assert "strict-transport-security" not in each.headers
        assert "access-control-allow-origin" not in each.headers


async def test_a_reply_says_of_caches_what_it_means(smollm2: Path) -> None:
    """A header is there once: a stream's own cache-control wins, and a download's nosniff is not doubled."""
    asked = {"model": "hermes-2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "stream": True}
    form: dict[str, Any] = {"data": {"purpose": "assistants"}, "files": {"file": ("a.txt", b"text")}}
    async with client_for(FakeEngine(), smollm2) as client:
        stream = await client.post("/v1/chat/completions", json=asked)
        file_id = (await client.post("/v1/files", **form)).json()["id"]
        download = await client.get(f"/v1/files/{file_id}/content")
    assert stream.headers.get_list("cache-control") == ["no-cache"]
    assert download.headers.get_list("x-content-type-options") == ["nosniff"]


async def test_the_page_of_the_api_is_json_alone(smollm2: Path) -> None:
    """No page that loads scripts from elsewhere; any key reads it."""
    async with client_for(FakeEngine(), smollm2) as client:
        assert (await client.get("/schema/openapi.json")).json()["openapi"].startswith("3.")
        assert (await client.get("/schema/openapi.json", headers=NO_KEY)).status_code == 401
        assert [(await client.get(f"/schema{page}")).status_code for page in ("/redoc", "/swagger", "/elements")] == [
            404
        ] * 3


async def test_https_is_remembered_by_browsers(smollm2: Path) -> None:
    """Where the service speaks it itself."""
    async with client_for(FakeEngine(), smollm2) as client:
        reply = await client.get("https://hermes2/health/live")
    assert reply.headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.9", [], "192.0.2.9"),
        ("192.0.2.9", ["203.0.113.7"], "192.0.2.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.7:4711"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["[2001:db8::7]:80"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["2001:db8::7"], "2001:db8::7"),
        ("fd00::1", ["203.0.113.7"], "203.0.113.7"),
    ],
)
def test_the_client_is_whom_a_trusted_proxy_names(peer: str, forwarded: list[str], client: str) -> None:
    """The rightmost address that is not itself trusted; what stands left of it anybody could have written."""
    proxies = Proxies(["10.0.0.0/8", "fd00::1"])
    scope: Any = {"client": (peer, 1), "headers": [(b"x-forwarded-for", each.encode()) for each in forwarded]}
    assert proxies.client_of(scope) == client


def test_an_unknown_peer_is_nobody() -> None:
    """On a Unix socket there is no address."""
    scope: Any = {"client": None, "headers": [(b"x-forwarded-for", b"203.0.113.7")]}
    assert Proxies(["10.0.0.0/8"]).client_of(scope) is None


@pytest.mark.parametrize("wrong", ["proxy", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_a_wrong_proxy_is_refused_at_the_start(wrong: str) -> None:
    """By its setting's name."""
    with pytest.raises(SettingsError, match="HERMES2_HTTP_TRUSTED_PROXIES"):
        Proxies([wrong])


async def test_the_access_log_names_key_and_client(smollm2: Path) -> None:
    """The id of the key, and the address behind a trusted proxy; neither the key nor a text."""
    asked = {"model": "hermes-2", "messages": [{"role": "user", "content": "a private thing"}], "max_tokens": 2}
    with structlog.testing.capture_logs() as logs:
        async with client_for(FakeEngine(), smollm2, HTTP_TRUSTED_PROXIES="127.0.0.0/8") as client:
            await client.post("/v1/chat/completions", json=asked, headers={"x-forwarded-for": "203.0.113.7"})
            key = client.headers["authorization"].removeprefix("Bearer ")
    (line,) = [each for each in logs if each["event"] == "request"]
    assert line["client"] == "203.0.113.7"
    assert line["key_id"]
    assert key not in repr(logs)
    assert "private" not in repr(logs)


async def preflight(client: httpx.AsyncClient, origin: str) -> httpx.Response:
    return await client.options("/v1/chat/completions", headers=PREFLIGHT | NO_KEY | {"origin": origin})


async def test_pages_of_other_origins_are_kept_out_by_default(smollm2: Path) -> None:
    """No header of CORS on anything."""
    async with client_for(FakeEngine(), smollm2) as client:
        replies = [await preflight(client, ORIGIN), await client.get("/v1/models", headers={"origin": ORIGIN})]
    assert replies[0].status_code == 401
    assert not any(name.startswith("access-control") for each in replies for name in each.headers)


async def test_named_origins_may_call(smollm2: Path) -> None:
    """Their preflight needs no key, the request does; they may read what a client of the API needs, and send no cookies."""
    async with client_for(FakeEngine(), smollm2, HTTP_CORS_ORIGINS=f"{ORIGIN}, http://localhost:3000") as client:
        asked = await preflight(client, ORIGIN)
        plain = await client.get("/v1/models", headers={"origin": ORIGIN})
        keyless = await client.get("/v1/models", headers=NO_KEY | {"origin": ORIGIN})
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == ORIGIN
    assert {"authorization", "content-type", "idempotency-key"} <= set(
        asked.headers["access-control-allow-headers"].lower().split(", ")
    )
    for each in (plain, keyless):
        assert each.headers["access-control-allow-origin"] == ORIGIN
        exposed = each.headers["access-control-expose-headers"].split(", ")
        assert {"x-request-id", "retry-after", "x-ratelimit-remaining-tokens"} <= set(exposed)
        assert "access-control-allow-credentials" not in each.headers
    assert (plain.status_code, keyless.status_code) == (200, 401)


@pytest.mark.parametrize(
    "origin", ["https://app.example.com.evil.net", "http://app.example.com", "null", "https://evil.net"]
)
async def test_other_origins_may_not(smollm2: Path, origin: str) -> None:
    """Neither in a preflight nor on a reply is their origin allowed."""
    async with client_for(FakeEngine(), smollm2, HTTP_CORS_ORIGINS=ORIGIN) as client:
        asked = await preflight(client, origin)
        plain = await client.get("/v1/models", headers={"origin": origin})
    assert asked.status_code == 400
    for each in (asked, plain):
        assert "access-control-allow-origin" not in each.headers


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/files"])
async def test_a_body_that_does_not_arrive_is_not_waited_for(
    smollm2: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Whoever announces one and sends half of it holds nothing for longer than a deadline."""
    monkeypatch.setattr(body, "ARRIVES_S", 0.05)

    async def half() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        await asyncio.Event().wait()

    headers = {"content-type": "application/json" if path == "/v1/completions" else "multipart/form-data; boundary=x"}
    async with client_for(FakeEngine(), smollm2) as client:
        reply = await client.post(path, content=half(), headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "request_timeout")


@pytest.mark.parametrize("wrong", ["*", "https://*.example.com", "example.com", "https://example.com/", "null"])
def test_an_origin_is_named_in_full(wrong: str) -> None:
    """A key in a page of any origin is a key that is lost."""
    with pytest.raises(SettingsError, match="HERMES2_HTTP_CORS_ORIGINS"):
        cors.config([wrong])
