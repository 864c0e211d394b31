"""/v1/files over a real database: what comes in piece by piece goes out as it came, and nothing else is left anywhere."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from frontend.db.database import SqlDatabase
from frontend.http.download import disposition
from frontend.services.files import PIECE_BYTES, shown
from tests.support.compatibility import OF_FILES
from tests.support.conversations import OURS, START, error, told
from tests.support.retrieval_api import FILES, MAX_BODY, Api, api_for, upload

BOUNDARY = "b"


@pytest.fixture
async def api(sqlite_database: SqlDatabase, smollm2: Path, minilm: Path) -> AsyncIterator[Api]:
    async with api_for(sqlite_database, smollm2, minilm, max_file=8 * PIECE_BYTES) as api:
        yield api


def part(name: str, body: bytes, filename: str | None = None) -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + body + b"\r\n"


PURPOSE, FILE = part("purpose", b"user_data"), part("file", b"abc", "a.txt")
END = f"--{BOUNDARY}--\r\n".encode()


async def send(api: Api, *parts: bytes) -> httpx.Response:
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return await api.ours.post(FILES, content=b"".join(parts), headers=headers)


async def rows(api: Api, table: str) -> int:
    """How many there are, seen by anybody or not."""
    assert isinstance(api.database, SqlDatabase)
    async with api.database._reader.connect() as connection:
        counted: int = (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()  # noqa: S608
    return counted


class TestALife:
    @pytest.mark.compat(OF_FILES, "upload, list, get, content, delete")
    async def test_whole(self, api: Api) -> None:
        """Uploaded, shown, read, listed, deleted; and nothing of it is left."""
        file_id = await upload(api, "Grüße", "../../böse\n/wörter.txt")
        shown_file = {
            "id": file_id,
            "object": "file",
            "bytes": 7,
            "created_at": START,
            "filename": "wörter.txt",
            "purpose": "assistants",
            "status": "processed",
        }
        assert (await api.ours.get(f"{FILES}/{file_id}")).json() == shown_file
        content = await api.ours.get(f"{FILES}/{file_id}/content")
        assert content.content == "Grüße".encode()
        assert content.headers["content-type"] == "application/octet-stream"
        assert content.headers["content-disposition"] == "attachment; filename*=UTF-8''w%C3%B6rter.txt"
        assert content.headers["x-content-type-options"] == "nosniff"
        listed = (await api.ours.get(FILES)).json()
        assert listed == {
            "object": "list",
            "data": [shown_file],
            "first_id": file_id,
            "last_id": file_id,
            "has_more": False,
        }
        deleted = (await api.ours.delete(f"{FILES}/{file_id}")).json()
        assert deleted == {"id": file_id, "object": "file", "deleted": True}
        assert (await api.ours.get(f"{FILES}/{file_id}")).status_code == 404
        assert await rows(api, "file_pieces") == 0

    @pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
    async def test_what_comes_goes_out_again(self, api: Api, size: int) -> None:
        """Whatever its size is to a piece's; the body of other routes is bounded lower."""
        assert MAX_BODY < 3 * PIECE_BYTES
        body = bytes(range(256)) * (size // 256 + 1)
        response = await send(api, PURPOSE, part("file", body[:size], "a.bin"), END)
        assert response.json()["bytes"] == size
        assert await rows(api, "file_pieces") == -(-size // PIECE_BYTES)
        content = await api.ours.get(f"{FILES}/{response.json()['id']}/content")
        assert content.content == body[:size]
        assert content.headers["content-length"] == str(size)

    async def test_the_fields_order_is_the_clients(self, api: Api) -> None:
        """The file may come first, and what is told behind it counts all the same."""
        expiry = part("expires_after[anchor]", b"created_at") + part("expires_after[seconds]", b"3600")
        for parts in ((PURPOSE, expiry, FILE), (FILE, PURPOSE, expiry)):
            made = (await send(api, *parts, END)).json()
            assert (made["purpose"], made["expires_at"], made["bytes"]) == ("user_data", START + 3600, 3)

    @pytest.mark.compat(OF_FILES, "`purpose` filter, `limit`, `order`, `after`; 10,000 by default")
    async def test_pages(self, api: Api) -> None:
        """By creation, of one purpose, from a place on."""
        ids = []
        for purpose in ("assistants", "user_data", "assistants"):
            api.clock.now += 1
            ids.append(await upload(api, purpose=purpose))
        of_purpose = (await api.ours.get(FILES, params={"purpose": "assistants"})).json()
        assert [each["id"] for each in of_purpose["data"]] == [ids[2], ids[0]]
        page = (await api.ours.get(FILES, params={"limit": 2, "order": "asc"})).json()
        assert [each["id"] for each in page["data"]] == ids[:2]
        assert page["has_more"]
        page = (await api.ours.get(FILES, params={"after": page["last_id"], "order": "asc"})).json()
        assert [each["id"] for each in page["data"]] == ids[2:]
        assert (await api.ours.get(FILES, params={"limit": 10_000})).status_code == 200
        assert error(await api.ours.get(FILES, params={"limit": 10_001})) == (400, "invalid_value", "limit")
        assert error(await api.ours.get(FILES, params={"purpose": "fun"}))[:2] == (400, "invalid_value")

    async def test_the_end_by_itself(self, api: Api) -> None:
        """An expired file is not there any more, to anybody, before the sweeper has taken it and after."""
        file_id = await upload(api, **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"})
        stays = await upload(api)
        api.clock.now += 3600
        for _ in range(2):
            for path in (f"{FILES}/{file_id}", f"{FILES}/{file_id}/content"):
                assert error(await api.ours.get(path)) == (404, "not_found", None)
            assert [each["id"] for each in (await api.ours.get(FILES)).json()["data"]] == [stays]
            await api.expiry.sweep()
        assert await rows(api, "files") == 1


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("parts", "code", "param"),
        [
            ([PURPOSE, END], "missing_required_parameter", "file"),
            ([FILE, END], "missing_required_parameter", "purpose"),
            ([END], "missing_required_parameter", "file"),
            ([part("purpose", b"fun"), FILE, END], "invalid_value", "purpose"),
            ([FILE, part("purpose", b"fun"), END], "invalid_value", "purpose"),
            ([PURPOSE, FILE, part("name", b"x"), END], "unknown_parameter", "name"),
            ([PURPOSE, PURPOSE, FILE, END], "invalid_value", "purpose"),
            ([PURPOSE, FILE, FILE, END], "invalid_value", "file"),
            ([PURPOSE, part("file", b"abc"), END], "invalid_value", "file"),
            ([part("purpose", b"user_data", "p.txt"), FILE, END], "invalid_value", "purpose"),
            ([part("purpose", b"x" * 2000), FILE, END], "invalid_value", "purpose"),
            ([part("purpose", b"\xff"), FILE, END], "invalid_value", "purpose"),
            (
                [PURPOSE, part("expires_after[seconds]", b"3600"), FILE, END],
                "missing_required_parameter",
                "expires_after[anchor]",
            ),
            (
                [PURPOSE, part("expires_after[anchor]", b"created_at"), FILE, END],
                "missing_required_parameter",
                "expires_after[seconds]",
            ),
            ([PURPOSE, part("expires_after[seconds]", b"3599"), FILE, END], "invalid_value", "expires_after[seconds]"),
            ([PURPOSE, part("expires_after[seconds]", b"soon"), FILE, END], "invalid_value", "expires_after[seconds]"),
            ([PURPOSE, part("expires_after[anchor]", b"now"), FILE, END], "invalid_value", "expires_after[anchor]"),
            ([PURPOSE, FILE], "invalid_form", None),
            ([b"no form"], "invalid_form", None),
            ([part(f"f{i}", b"") for i in range(20)] + [END], "invalid_form", None),
        ],
    )
    async def test_wrong_forms(self, api: Api, parts: list[bytes], code: str, param: str | None) -> None:
        """400 that names what is wrong, and nothing is kept."""
        assert error(await send(api, *parts)) == (400, code, param)
        assert await rows(api, "files") == 0
        assert await rows(api, "file_pieces") == 0

    async def test_no_form(self, api: Api) -> None:
        """JSON, or a form without its boundary."""
        for headers in (
            {},
            {"content-type": "application/json"},
            {"content-type": "multipart/form-data"},
            {"content-type": "multipart/form-data; boundary=" + "x" * 300},
        ):
            response = await api.ours.post(FILES, content=b"{}", headers=headers)
            assert error(response) == (400, "unsupported_content_type", None)

    @pytest.mark.parametrize("announced", [True, False])
    async def test_too_large(self, api: Api, announced: bool) -> None:
        """413, whether its size is announced or not; nothing is kept, and a file of just that size is taken."""

        async def body(size: int) -> AsyncIterator[bytes]:
            yield PURPOSE + part("file", b"", "a.bin")[:-2]
            for _ in range(size // PIECE_BYTES):
                yield bytes(PIECE_BYTES)
            yield bytes(size % PIECE_BYTES) + b"\r\n" + END

        headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        for size, status in ((8 * PIECE_BYTES, 200), (8 * PIECE_BYTES + 1, 413), (9 * PIECE_BYTES, 413)):
            content = b"".join([each async for each in body(size)]) if announced else body(size)
            response = await api.ours.post(FILES, content=content, headers=headers)
            assert response.status_code == status
            if status == 413:
                assert error(response) == (413, "request_too_large", "file")
        assert await rows(api, "files") == 1

    async def test_a_client_that_leaves(self, api: Api) -> None:
        """In the middle of its file: nothing of it is kept."""
        messages: list[dict[str, Any]] = [
            {
                "type": "http.request",
                "body": PURPOSE + part("file", bytes(2 * PIECE_BYTES), "a")[:-2],
                "more_body": True,
            },
            {"type": "http.disconnect"},
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if len(messages) > 1 else messages[0]

        async def keep(message: Any) -> None:
            sent.append(message)

        headers = [
            (b"authorization", f"Bearer {OURS}".encode()),
            (b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode()),
        ]
        scope: Any = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": FILES,
            "raw_path": FILES.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "server": ("hermes2", 80),
            "client": ("127.0.0.1", 1),
        }
        await api.app(scope, receive, keep)
        assert json.loads(sent[1]["body"])["error"]["code"] == "incomplete_upload"
        assert await rows(api, "files") == 0
        assert await rows(api, "file_pieces") == 0

    async def test_quotas(self, sqlite_database: SqlDatabase, smollm2: Path, minilm: Path) -> None:
        """So many files and so many bytes of one tenant; what is refused leaves nothing."""
        async with api_for(sqlite_database, smollm2, minilm, files_per_tenant=2, bytes_per_tenant=2000) as api:
            first = await upload(api, "x" * 900)
            refused = await send(api, PURPOSE, part("file", b"x" * 1200, "a"), END)
            assert error(refused) == (400, "quota_exceeded", None)
            await upload(api)
            assert error(await send(api, PURPOSE, FILE, END)) == (400, "quota_exceeded", None)
            await api.ours.delete(f"{FILES}/{first}")
            await upload(api)
            assert await rows(api, "files") == 2


class TestOthers:
    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    async def test_anothers_file(self, api: Api, method: str) -> None:
        """Is answered in the same bytes as one that is not there, on every route, and stays."""
        file_id = await upload(api)
        paths = [f"{FILES}/{file_id}", *([f"{FILES}/{file_id}/content"] if method == "GET" else [])]
        foreign = [told(await api.theirs.request(method, path)) for path in paths]
        assert [each[0] for each in foreign] == [404] * len(paths)
        assert (await api.theirs.get(FILES)).json()["data"] == []
        assert (await api.ours.delete(f"{FILES}/{file_id}")).status_code == 200
        assert foreign == [told(await api.theirs.request(method, path)) for path in paths]

    async def test_memory(self, api: Api) -> None:
        """An upload holds some pieces, never the file."""
        size = 8 * PIECE_BYTES

        async def body() -> AsyncIterator[bytes]:
            yield PURPOSE + part("file", b"", "a.bin")[:-2]
            for _ in range(size // 65536):
                yield bytes(65536)
                await asyncio.sleep(0)
            yield b"\r\n" + END

        headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        tracemalloc.start()
        try:
            assert (await api.ours.post(FILES, content=body(), headers=headers)).status_code == 200
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < size - PIECE_BYTES


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("report.pdf", "report.pdf"),
        ("/etc/passwd", "passwd"),
        ("C:\\Users\\me\\plan.docx", "plan.docx"),
        ("..", "file"),
        ("a/..", "file"),
        ("", "file"),
        (" \t", "file"),
        ("a\r\nset-cookie: x.txt", "aset-cookie: x.txt"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("nul\0.txt", "nul.txt"),
        ("日本語.md", "日本語.md"),
        ("x" * 300 + ".txt", "x" * 251 + ".txt"),
        ("x" * 300, "x" * 255),
    ],
)
def test_names_are_for_people(sent: str, kept: str) -> None:
    """A name's last part, without what cannot be seen; it keeps its ending, and a header can hold it whatever it is."""
    assert shown(sent) == kept
    assert b"\n" not in disposition(sent)
    assert b'"' not in disposition(sent)
