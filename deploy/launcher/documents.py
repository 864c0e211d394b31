"""`hermes2 ingest` and `hermes2 search`: files and folders into a vector store of a running service, and passages out of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from deploy.launcher.api import Api, Body, Refused, segment
from deploy.launcher.problem import Problem

BATCH_FILES = 100
POLL_S = 0.5
NOT_FOUND = 404

Tell = Callable[[str], None]


class Failed(msgspec.Struct, frozen=True):
    path: Path
    reason: str


def ingest(api: Api, paths: Sequence[Path], store: str, tell: Tell) -> list[Failed]:
    """Uploads every file, puts all of them into the store, and waits; those that have failed. Raises Problem."""
    files = list(found(paths))
    if not files:
        raise Problem("there is no file in what was named")
    store_id = open_store(api, store, tell)
    failed: list[Failed] = []
    for start in range(0, len(files), BATCH_FILES):

        def told(done: int, before: int = start) -> None:
            tell(f"{before + done} of {len(files)} files")

        failed += ingest_some(api, files[start : start + BATCH_FILES], store_id, told)
    return failed


def found(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each file with the name that it gets: in a folder, its path from there. What is hidden is passed over."""
    for path in paths:
        if path.is_dir():
            for each in sorted(path.rglob("*")):
                inner = each.relative_to(path)
                if each.is_file() and not any(part.startswith(".") for part in inner.parts):
                    yield each, inner.as_posix()
        elif path.is_file():
            yield path, path.name
        else:
            raise Problem(f"{path}: there is no such file or folder")


def ingest_some(
    api: Api, files: Sequence[tuple[Path, str]], store_id: str, told: Callable[[int], None]
) -> list[Failed]:
    failed, uploaded = [], {}
    for path, name in files:
        try:
            uploaded[api.upload(path, name)["id"]] = path
        except OSError as exc:
            failed.append(Failed(path, exc.strerror or str(exc)))
        except Refused as exc:
            failed.append(Failed(path, str(exc)))
    if uploaded:
        url = f"/v1/vector_stores/{segment(store_id)}/file_batches"
        batch = wait(api, api.post(url, {"file_ids": list(uploaded)}), url, told)
        if batch["file_counts"]["completed"] < len(uploaded):
            failed += reasons(api, f"{url}/{batch['id']}/files", uploaded)
    return failed


def wait(api: Api, batch: Body, url: str, told: Callable[[int], None]) -> Body:
    """Until the batch has an end."""
    last = -1
    while True:
        counts = batch["file_counts"]
        done = counts["total"] - counts["in_progress"]
        if done != last:
            told(done)
            last = done
        if batch["status"] != "in_progress":
            return batch
        time.sleep(POLL_S)
        batch = api.get(f"{url}/{batch['id']}")


def reasons(api: Api, url: str, uploaded: dict[str, Path]) -> list[Failed]:
    failed = []
    for status in ("failed", "cancelled"):
        for each in api.all(url, filter=status):
            why = (each["last_error"] or {}).get("message", status)
            failed.append(Failed(uploaded[each["id"]], why))
    return failed


def open_store(api: Api, store: str, tell: Tell) -> str:
    """The id of the store of this id or name; it is made if there is none. Raises Problem if several have the name."""
    if existing := find_store(api, store):
        return existing
    if store.startswith("vs_"):
        raise Problem(f"there is no vector store {store}")
    made: str = api.post("/v1/vector_stores", {"name": store})["id"]
    tell(f"made the vector store {made} ({store})")
    return made


def find_store(api: Api, store: str) -> str | None:
    if store.startswith("vs_"):
        try:
            return str(api.get(f"/v1/vector_stores/{segment(store)}")["id"])
        except Refused as exc:
            if exc.status != NOT_FOUND:
                raise
            return None
    named = [each["id"] for each in api.all("/v1/vector_stores") if each["name"] == store]
    if len(named) > 1:
        raise Problem(f"several vector stores have the name {store!r}: {', '.join(named)}. Please say which, by its id")
    return named[0] if named else None


def search(api: Api, store: str, query: str, results: int) -> list[Body]:
    """The passages that fit best, as the API gives them. Raises Problem."""
    store_id = find_store(api, store)
    if store_id is None:
        raise Problem(f"there is no vector store {store!r}")
    body = {"query": query, "max_num_results": results}
    data: list[Body] = api.post(f"/v1/vector_stores/{segment(store_id)}/search", body)["data"]
    return data


def shown(passage: Body) -> str:
    """For people: the score, the file, the text."""
    text = "\n".join(part["text"] for part in passage["content"])
    return f"{passage['score']:.3f}  {passage['filename']} ({passage['file_id']})\n{indented(text)}\n"


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def tell_progress(line: str) -> None:
    """On standard error; on a terminal each line in the place of the one before."""
    end = "\r" if sys.stderr.isatty() else "\n"
    print(f"hermes2: {line}", file=sys.stderr, end=end, flush=True)
