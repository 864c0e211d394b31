"""The service's HTTP API, from the command line: one connection per request, files streamed, errors as Problems."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from deploy.launcher.problem import Problem

TIMEOUT_S = 120.0
BLOCK_BYTES = 2**20
TRIES, LONGEST_WAIT_S = 6, 30.0
BUSY = (429, 503)
PAGE = 100

Body = dict[str, Any]
"""JSON that a reply holds."""


class Refused(Problem):
    """The service has answered with an error; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    def __init__(self, url: str, key: str, trust: ssl.SSLContext | None = None) -> None:
        """`url`: of the service, without /v1; `trust`: with https: by default the authorities of this machine. Raises Problem
        if it is none."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Problem(f"{url!r} is not an address like http://127.0.0.1:11401")
        self._parts = parts
        self._key = key
        self._trust = trust

    def get(self, path: str, **query: str | int) -> Body:
        return self._send("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, body: Body) -> Body:
        return self._send("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})

    def all(self, path: str, **query: str) -> Iterator[Body]:
        """What a list holds, page after page."""
        after: dict[str, str] = {}
        while True:
            page = self.get(path, limit=PAGE, **query, **after)
            yield from page["data"]
            if not page["has_more"]:
                return
            after = {"after": page["last_id"]}

    def upload(self, path: Path, filename: str) -> Body:
        """A file of any size. Raises Problem if it cannot be read."""
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{quoted(filename)}"\r\n'
            "content-type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        try:
            size = path.stat().st_size
            headers = {
                "content-type": f"multipart/form-data; boundary={boundary}",
                "content-length": str(len(head) + size + len(tail)),
            }
            return self._send("POST", "/v1/files", Streamed(path, size, head, tail), headers)
        except FileChanged:
            raise Problem(f"{path}: it changes while it is read") from None

    def _send(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Body:
        """Tries again, for a minute or so, as long as the service asks for that. Raises Problem."""
        for attempt in range(TRIES):
            status, reply, wait_s = self._once(method, path, body, headers or {})
            if status not in BUSY or attempt == TRIES - 1:
                break
            time.sleep(min(max(wait_s, 0.5 * 2**attempt), LONGEST_WAIT_S))
        if status >= 400:
            error = reply.get("error") or {}
            raise Refused(status, str(error.get("message") or f"{method} {path} was answered with {status}"))
        return reply

    def _once(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Body, float]:
        """Status, body, and for how long the service asks to wait, seconds."""
        connection = self._connection()
        headers = {"authorization": f"Bearer {self._key}", "connection": "close", **headers}
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, body, headers)
            reply = connection.getresponse()
            read = reply.read()
        except (OSError, http.client.HTTPException) as exc:
            raise Problem(f"{self._parts.geturl()} does not answer: {exc or type(exc).__name__}") from exc
        finally:
            connection.close()
        try:
            return reply.status, json.loads(read or b"{}"), seconds(reply.getheader("retry-after"))
        except ValueError as exc:
            raise Problem(f"{self._parts.geturl()} answers with something that is not the service's") from exc

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname, self._parts.port
        assert host is not None
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=self._trust)
        return http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)


class FileChanged(Exception):
    pass


class Streamed:
    """A form with a file in it, each time from the beginning: what was refused is sent again."""

    def __init__(self, path: Path, size: int, head: bytes, tail: bytes) -> None:
        self._path = path
        self._size = size
        self._head = head
        self._tail = tail

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        left = self._size
        with self._path.open("rb") as file:
            while left:
                block = file.read(min(BLOCK_BYTES, left))
                if not block:
                    raise FileChanged
                yield block
                left -= len(block)
        yield self._tail


def quoted(filename: str) -> str:
    """As browsers write it into a form."""
    return filename.replace("\\", "\\\\").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def segment(text: str) -> str:
    """One segment of a path."""
    return quote(text, safe="")


def seconds(header: str | None) -> float:
    try:
        return float(header or 0)
    except ValueError:
        return 0.0
