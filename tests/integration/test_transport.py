"""HTTPS by files, over the real stack: what is answered, what is refused, and how a certificate is renewed."""

from __future__ import annotations

import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.support.certificates import make
from tests.support.stack import API_KEY, BIN, Stack

HEADERS = {"authorization": f"Bearer {API_KEY}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def secure(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole service with a certificate of the test's own, on all addresses of this machine."""
    certificate, key = make(folder, "first")
    with Stack(
        tmp_path_factory.mktemp("secure"),
        ENGINE_BACKEND="scripted",
        HOST="0.0.0.0",  # noqa: S104  # it may, with TLS
        HTTP_TLS_CERTIFICATE=certificate,
        HTTP_TLS_KEY=key,
    ) as running:
        yield running


def https(stack: Stack) -> str:
    return f"https://127.0.0.1:{stack.port}"


def test_clients_talk_https(secure: Stack, folder: Path) -> None:
    """The OpenAI SDK with the certificate trusted, whole and streamed; the announcement names the scheme."""
    assert f"answers on https://0.0.0.0:{secure.port}/v1" in secure.log
    trust = ssl.create_default_context(cafile=str(folder / "first.pem"))
    with (
        httpx.Client(verify=trust) as http,
        openai.OpenAI(
            base_url=f"{https(secure)}/v1",
            api_key=API_KEY,
            max_retries=0,
            http_client=http,  # type: ignore[arg-type]  # the SDK takes httpx as well as its successor
        ) as sdk,
    ):
        whole = sdk.chat.completions.create(
            model="hermes-2", messages=[{"role": "user", "content": "Hi"}], max_tokens=4
        )
        assert whole.choices[0].finish_reason
        stream = sdk.chat.completions.create(
            model="hermes-2", messages=[{"role": "user", "content": "Hi"}], max_tokens=4, stream=True
        )
        assert [chunk for chunk in stream if chunk.choices]
        reply = http.get(f"{https(secure)}/v1/models", headers=HEADERS)
    assert reply.headers["strict-transport-security"] == "max-age=31536000"
    assert reply.http_version == "HTTP/1.1"


def test_plain_http_is_not_answered(secure: Stack) -> None:
    """Not even with a redirect: the key would have gone over the network already."""
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{secure.port}/v1/models", headers=HEADERS)


def test_old_tls_is_refused(secure: Stack, folder: Path) -> None:
    """TLS 1.2 is the oldest."""
    context = ssl.create_default_context(cafile=str(folder / "first.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert httpx.get(f"{https(secure)}/health/live", verify=context).status_code == 200
    context = ssl.create_default_context(cafile=str(folder / "first.pem"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.ConnectError, match="ALERT"):
        httpx.get(f"{https(secure)}/health/live", verify=context)


def test_the_command_line_trusts_the_certificate_of_its_settings(secure: Stack, folder: Path) -> None:
    """`hermes2 search` asks over HTTPS, and gets the service's own answer; another address needs --ca-file."""
    key_file = folder / "key"
    key_file.write_text(API_KEY)
    elsewhere = ["--url", https(secure), "--key-file", str(key_file)]
    for options, answered in (
        ([], True),
        (elsewhere, False),
        ([*elsewhere, "--ca-file", str(folder / "first.pem")], True),
    ):
        done = subprocess.run(
            [str(BIN / "hermes2"), "search", "nothing", "words", *options],
            env=secure.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert ("There is no such route" in done.stderr) == answered, done.stderr
        assert ("CERTIFICATE_VERIFY_FAILED" in done.stderr) != answered


def test_a_renewed_certificate_is_read_on_hangup(secure: Stack, folder: Path) -> None:
    """SIGHUP to Granian's master: new workers with the new files; the launcher sees no failure meanwhile."""
    renewed, key = make(folder, "second")
    (folder / "first.pem").write_bytes(renewed.read_bytes())
    (folder / "first.key").write_bytes(key.read_bytes())
    master = min((p for p in secure.family() if "granian" in " ".join(p.cmdline())), key=lambda p: p.create_time())
    master.send_signal(signal.SIGHUP)
    trust = ssl.create_default_context(cafile=str(renewed))
    retrying = httpx.HTTPTransport(verify=trust)
    for _ in range(100):
        try:
            with httpx.Client(transport=retrying) as http:
                assert http.get(f"{https(secure)}/health/live").status_code == 200
            break
        except httpx.TransportError:
            retrying = httpx.HTTPTransport(verify=trust)
            time.sleep(0.1)
    else:
        raise AssertionError(secure.log)
    assert master.is_running()
