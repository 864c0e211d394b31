"""`hermes2 ingest` and `hermes2 search` against a server that keeps what it is sent, over real sockets."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from deploy.launcher.cli import hermes2
from deploy.launcher.problem import Problem

KEY = "hm2_a-key-of-a-test"


class Service(ThreadingHTTPServer):
    """As much of the API as the commands use. A file whose name has "bad" in it fails; `busy`: so many 503s come first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stores: list[dict[str, Any]] = []
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, list[str]] = {}
        self.polls = 0
        self.busy = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["content-length"])))

    def answer(self, body: bytes) -> None:
        status, reply = 200, {}
        if self.headers["authorization"] != f"Bearer {KEY}":
            status, reply = 401, {"error": {"message": "That key is not known."}}
        elif self.server.busy:
            self.server.busy -= 1
            status, reply = 503, {"error": {"message": "Busy."}}
        else:
            reply = self.route(urlsplit(self.path).path.removeprefix("/v1"), body)
            status = 404 if "error" in reply else 200
        self.send_response(status)
        self.send_header("retry-after", "0.01")
        self.end_headers()
        self.wfile.write(json.dumps(reply).encode())

    def route(self, path: str, body: bytes) -> dict[str, Any]:
        service, query = self.server, parse_qs(urlsplit(self.path).query)
        if path == "/files":
            return self.keep(body)
        if path == "/vector_stores" and body:
            store = {"id": f"vs_{len(service.stores)}", **json.loads(body)}
            service.stores.append(store)
            return store
        if path == "/vector_stores":
            start = next((n + 1 for n, each in enumerate(service.stores) if each["id"] in query.get("after", [])), 0)
            page = service.stores[start : start + 1]  # one a page, whatever was asked for
            last = page[-1]["id"] if page else ""
            return {"data": page, "has_more": start + 1 < len(service.stores), "last_id": last}
        if path.endswith("/search"):
            asked = json.loads(body)
            texts = [text.decode() for _, text in service.files.values()][: asked["max_num_results"]]
            rows = [{"score": 0.5, "filename": "a", "file_id": "f", "content": [{"text": text}]} for text in texts]
            return {"data": rows}
        if path.endswith("/file_batches"):
            service.batches["vsfb_1"] = json.loads(body)["file_ids"]
            return self.batch(done=0)
        if path.endswith("/vsfb_1"):
            service.polls += 1
            return self.batch(done=service.polls)
        if path.endswith("/vsfb_1/files"):
            bad = self.bad() if query["filter"] == ["failed"] else []
            rows = [{"id": each, "last_error": {"message": "It is broken."}} for each in bad]
            return {"data": rows, "has_more": False, "last_id": ""}
        found = next((each for each in service.stores if path == f"/vector_stores/{each['id']}"), None)
        return found or {"error": {"message": "not found"}}

    def keep(self, body: bytes) -> dict[str, Any]:
        form = BytesParser(policy=HTTP).parsebytes(
            b"content-type: " + self.headers["content-type"].encode() + b"\n\n" + body
        )
        purpose, file = form.iter_parts()
        assert purpose.get_content().strip() == "assistants"
        file_id = f"file_{len(self.server.files)}"
        self.server.files[file_id] = (str(file.get_filename()), bytes(file.get_payload(decode=True)))
        return {"id": file_id}

    def bad(self) -> list[str]:
        return [each for each in self.server.batches["vsfb_1"] if "bad" in self.server.files[each][0]]

    def batch(self, done: int) -> dict[str, Any]:
        total, bad = len(self.server.batches["vsfb_1"]), len(self.bad())
        over = done >= total
        counts = {"total": total, "in_progress": total - done, "completed": total - bad if over else 0}
        return {"id": "vsfb_1", "status": "completed" if over else "in_progress", "file_counts": counts}


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr("deploy.launcher.documents.POLL_S", 0.01)
    for name in [each for each in os.environ if each.startswith("HERMES2_")]:
        monkeypatch.delenv(name)
    with Service() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def run(service: Service, tmp_path: Path) -> Any:
    (tmp_path / "key").write_text(f"{KEY}\n")

    def command(*arguments: str, key_file: str = "key") -> Result:
        there = ["--url", service.url, "--key-file", str(tmp_path / key_file)]
        return CliRunner().invoke(hermes2, [*arguments, *there])

    return command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good files, one of them below, and hidden ones."""
    inner = tmp_path / "docs"
    for name in ("a.txt", "sub/b.md", ".git/config", "sub/.hidden"):
        (inner / name).parent.mkdir(parents=True, exist_ok=True)
        (inner / name).write_text(f"the text of {name}")
    return inner


def test_a_folder(service: Service, run: Any, folder: Path) -> None:
    """All its files are uploaded under their paths in it, without the hidden ones; the store is made, progress is told."""
    result = run("ingest", str(folder), "--store", "facts")
    assert result.exit_code == 0, result.output
    assert sorted(service.files.values()) == [("a.txt", b"the text of a.txt"), ("sub/b.md", b"the text of sub/b.md")]
    assert [each["name"] for each in service.stores] == ["facts"]
    assert "2 of 2 files" in result.stderr


def test_what_has_failed_is_told(service: Service, run: Any, folder: Path) -> None:
    """Each with its reason, after all others were put in; the status is not 0."""
    (folder / "bad.pdf").write_text("%PDF")
    result = run("ingest", str(folder), "--store", "facts")
    assert f"{folder}/bad.pdf: It is broken." in result.stderr
    assert isinstance(result.exception, Problem)
    assert len(service.files) == 3


def test_a_store_by_its_name_and_by_its_id(service: Service, run: Any, folder: Path) -> None:
    """An existing one is used, wherever in the list it stands; two of a name are not guessed at; an unknown id is told."""
    service.stores = [{"id": f"vs_{n}", "name": name} for n, name in enumerate(("twice", "x", "twice", "facts"))]
    for store in ("facts", "vs_3"):
        assert run("ingest", str(folder / "a.txt"), "--store", store).exit_code == 0
    assert len(service.stores) == 4
    for store, words in (("twice", "vs_0, vs_2"), ("vs_9", "no vector store vs_9")):
        assert words in str(run("ingest", str(folder), "--store", store).exception)


def test_a_busy_service_is_asked_again(service: Service, run: Any, folder: Path) -> None:
    """A file is sent again, whole, when the service says that it is busy."""
    service.busy = 1
    assert run("ingest", str(folder / "a.txt"), "--store", "facts").exit_code == 0
    assert list(service.files.values()) == [("a.txt", b"the text of a.txt")]


def test_a_large_file_is_streamed(service: Service, run: Any, tmp_path: Path) -> None:
    """Whatever its size and its name."""
    body = os.urandom(3 * 2**20 + 1)
    (tmp_path / 'Grüße "1".bin').write_bytes(body)
    assert run("ingest", str(tmp_path / 'Grüße "1".bin'), "--store", "facts").exit_code == 0
    assert [found for _, found in service.files.values()] == [body]


def test_problems(service: Service, run: Any, folder: Path, tmp_path: Path) -> None:
    """One line that says what to mend: no such path, a wrong key, nobody there."""
    (tmp_path / "wrong").write_text("hm2_wrong")
    assert "no such file" in str(run("ingest", str(folder / "none"), "--store", "facts").exception)
    assert "not known" in str(run("search", "facts", "x", key_file="wrong").exception)
    assert "no vector store 'facts'" in str(run("search", "facts", "x").exception)
    alone = CliRunner().invoke(
        hermes2, ["search", "a", "b", "--url", "http://127.0.0.1:1", "--key-file", str(tmp_path / "wrong")]
    )
    assert "does not answer" in str(alone.exception)


def test_search(service: Service, run: Any, folder: Path) -> None:
    """The best passages with their scores, for people, or as JSON for programs."""
    run("ingest", str(folder), "--store", "facts")
    result = run("search", "facts", "what?", "--results", "1")
    assert result.stdout == "0.500  a (f)\n    the text of a.txt\n\n"
    lines = run("search", "facts", "what?", "--json").stdout.splitlines()
    assert [json.loads(line)["content"] for line in lines] == [
        [{"text": "the text of a.txt"}],
        [{"text": "the text of sub/b.md"}],
    ]
