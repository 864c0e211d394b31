"""/v1/vector_stores over a real database, real indexes and real ingest: what is told of a store is true, to its owner alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from frontend.domain.documents import EmbeddingPin
from frontend.domain.storage import Database
from frontend.services.expiry import EXPIRED_STORE_S
from tests.support.compatibility import OF_VECTOR_STORES
from tests.support.conversations import START, error, told
from tests.support.retrieval_api import FILES, STORES, Api, api_for, filled, ingested, make, searched, upload

DAY_S = 86_400
TEXTS = {
    "gate.txt": "The harbour gate opens at seven in the morning.",
    "cats.txt": "A cat sleeps for sixteen hours a day.",
    "rope.txt": "The rope costs twelve coins at the market.",
}
NO_FILES = {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0}


@pytest.fixture
async def api(sqlite_database: Database, smollm2: Path, minilm: Path) -> AsyncIterator[Api]:
    async with api_for(sqlite_database, smollm2, minilm) as api:
        yield api


def eq(key: str, value: object) -> dict[str, object]:
    return {"type": "eq", "key": key, "value": value}


def counts(**given: int) -> dict[str, int]:
    return {**NO_FILES, **given, "total": sum(given.values())}


class TestStores:
    @pytest.mark.compat(OF_VECTOR_STORES, "create, list, get, update, delete")
    async def test_a_life(self, api: Api) -> None:
        """Made, shown, changed, listed, deleted."""
        made = await make(api, name="facts", description="What is known", metadata={"a": "1"})
        assert made == {
            "id": made["id"],
            "object": "vector_store",
            "created_at": START,
            "name": "facts",
            "description": "What is known",
            "usage_bytes": 0,
            "file_counts": NO_FILES,
            "status": "completed",
            "expires_at": None,
            "last_active_at": START,
            "metadata": {"a": "1"},
        }
        path = f"{STORES}/{made['id']}"
        assert (await api.ours.get(path)).json() == made
        api.clock.now += 5
        change = {"name": "facts 2", "metadata": None, "expires_after": {"anchor": "last_active_at", "days": 2}}
        changed = (await api.ours.post(path, json=change)).json()
        assert changed == made | {
            "name": "facts 2",
            "metadata": {},
            "last_active_at": START + 5,
            "expires_after": {"anchor": "last_active_at", "days": 2},
            "expires_at": START + 5 + 2 * DAY_S,
        }
        assert (await api.ours.post(path, json={"expires_after": None})).json()["expires_at"] is None
        assert [each["id"] for each in (await api.ours.get(STORES)).json()["data"]] == [made["id"]]
        deleted = (await api.ours.delete(path)).json()
        assert deleted == {"id": made["id"], "object": "vector_store.deleted", "deleted": True}
        assert error(await api.ours.get(path)) == (404, "not_found", None)

    @pytest.mark.compat(OF_VECTOR_STORES, "`limit`, `order`, `after`, `before`; `filter` of files")
    async def test_pages_in_both_directions(self, api: Api) -> None:
        """`before` shows the page before a place, in the order that was asked for."""
        ids = []
        for _ in range(5):
            api.clock.now += 1
            ids.append((await make(api))["id"])

        async def page(**query: object) -> tuple[list[str], bool]:
            found = (await api.ours.get(STORES, params=query)).json()  # type: ignore[arg-type]  # texts and numbers
            return [each["id"] for each in found["data"]], found["has_more"]

        assert await page(limit=2) == ([ids[4], ids[3]], True)
        assert await page(limit=2, after=ids[3]) == ([ids[2], ids[1]], True)
        assert await page(limit=2, before=ids[2]) == ([ids[4], ids[3]], False)
        assert await page(limit=2, before=ids[4], order="asc") == ([ids[2], ids[3]], True)
        both = await api.ours.get(STORES, params={"before": ids[2], "after": ids[4]})
        assert error(both) == (400, "invalid_value", "before")

    @pytest.mark.parametrize(
        ("body", "code", "param"),
        [
            ({"nmae": "x"}, "unknown_parameter", "nmae"),
            ({"name": "a\0"}, "invalid_value", "name"),
            ({"metadata": {"k": 1}}, "invalid_value", "metadata"),
            ({"expires_after": {"anchor": "created_at", "days": 1}}, "invalid_value", "expires_after.anchor"),
            ({"expires_after": {"anchor": "last_active_at", "days": 366}}, "invalid_value", "expires_after.days"),
            ({"file_ids": ["file-1"] * 501}, "invalid_value", "file_ids"),
            ({"file_ids": ["file-1"]}, "not_found", "file_ids"),
            (
                {"chunking_strategy": {"type": "static", "static": {"max_chunk_size_tokens": 100}}},
                "missing_required_parameter",
                "chunking_strategy.static.chunk_overlap_tokens",
            ),
            (
                {
                    "chunking_strategy": {
                        "type": "static",
                        "static": {"max_chunk_size_tokens": 4097, "chunk_overlap_tokens": 1},
                    }
                },
                "invalid_value",
                "chunking_strategy.static.max_chunk_size_tokens",
            ),
            (
                {
                    "chunking_strategy": {
                        "type": "static",
                        "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 51},
                    }
                },
                "invalid_value",
                "chunking_strategy.static.chunk_overlap_tokens",
            ),
            ({"chunking_strategy": {"type": "other"}}, "invalid_value", "chunking_strategy"),
        ],
    )
    async def test_wrong_bodies(self, api: Api, body: dict[str, Any], code: str, param: str) -> None:
        """A refusal that names what is wrong; nothing is made."""
        status = 404 if code == "not_found" else 400
        response = await api.ours.post(STORES, json=body)
        assert response.status_code == status
        assert error(response)[1] == code
        assert error(response)[2] is not None
        assert str(error(response)[2]).startswith(param.rsplit(".", 1)[0] if param.endswith("anchor") else param)
        assert (await api.ours.get(STORES)).json()["data"] == []

    async def test_quotas(self, sqlite_database: Database, smollm2: Path, minilm: Path) -> None:
        """Stores of a tenant, files of a store, files that wait: what is over is refused whole."""
        limits: dict[str, Any] = {"stores_per_tenant": 2, "files_per_store": 2, "waiting_per_tenant": 3}
        async with api_for(sqlite_database, smollm2, minilm, **limits) as api:
            files = [await upload(api) for _ in range(3)]
            too_many = await api.ours.post(STORES, json={"file_ids": files})
            assert error(too_many) == (400, "quota_exceeded", None)
            await make(api, file_ids=files[:2])
            assert error(await api.ours.post(STORES, json={"file_ids": files[:2]}))[1] == "quota_exceeded"
            second = await make(api)
            assert error(await api.ours.post(STORES, json={})) == (400, "quota_exceeded", None)
            await api.ours.delete(f"{STORES}/{second['id']}")
            await make(api)

    @pytest.mark.compat(OF_VECTOR_STORES, "`expires_after`, status `expired`")
    async def test_the_end_by_itself(self, api: Api) -> None:
        """A search moves it; after it the store says that it has expired, finds nothing and takes nothing, and in a day it
        is gone."""
        store_id, _ = await filled(api, TEXTS, expires_after={"anchor": "last_active_at", "days": 1})
        path = f"{STORES}/{store_id}"
        api.clock.now += DAY_S - 1
        assert await searched(api, store_id, "harbour gate")
        assert (await api.ours.get(path)).json()["expires_at"] == api.clock.now + DAY_S
        api.clock.now += DAY_S
        await api.expiry.sweep()
        expired = (await api.ours.get(path)).json()
        assert expired["status"] == "expired"
        assert [each["status"] for each in (await api.ours.get(STORES)).json()["data"]] == ["expired"]
        file_id = await upload(api)
        for sub, body in (
            ("/search", {"query": "gate"}),
            ("/files", {"file_id": file_id}),
            ("/file_batches", {"file_ids": [file_id]}),
            ("", {"name": "again"}),
        ):
            assert error(await api.ours.post(path + sub, json=body)) == (400, "vector_store_expired", None)
        api.clock.now += EXPIRED_STORE_S
        await api.expiry.sweep()
        assert (await api.ours.get(path)).status_code == 404
        assert len(api.catalog) == 0


class TestFiles:
    @pytest.mark.compat(OF_VECTOR_STORES, "files: create, list, get, update (attributes), delete, content")
    async def test_a_life(self, api: Api) -> None:
        """Put in, in progress with a header for those who poll, completed, found, shown, taken out and not found."""
        store_id = (await make(api))["id"]
        file_id = await upload(api, TEXTS["gate.txt"], "gate.txt")
        path = f"{STORES}/{store_id}/files"
        put = await api.ours.post(
            path, json={"file_id": file_id, "attributes": {"topic": "port", "year": 5, "ok": True}}
        )
        body = put.json()
        assert body == {
            "id": file_id,
            "object": "vector_store.file",
            "usage_bytes": 0,
            "created_at": START,
            "vector_store_id": store_id,
            "status": "in_progress",
            "last_error": None,
            "chunking_strategy": {
                "type": "static",
                "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400},
            },
            "attributes": {"topic": "port", "year": 5.0, "ok": True},
        }
        store = await api.ours.get(f"{STORES}/{store_id}")
        assert (store.json()["status"], store.json()["file_counts"]) == ("in_progress", counts(in_progress=1))
        polled = await api.ours.get(f"{path}/{file_id}")
        assert [int(each.headers["openai-poll-after-ms"]) > 0 for each in (put, store, polled)] == [True] * 3
        assert error(await api.ours.get(f"{path}/{file_id}/content")) == (400, "file_not_completed", None)
        done = await ingested(api, store_id)
        assert (done["status"], done["file_counts"]) == ("completed", counts(completed=1))
        polled = await api.ours.get(f"{path}/{file_id}")
        assert polled.json()["status"] == "completed"
        assert polled.json()["usage_bytes"] == done["usage_bytes"] > 0
        assert "openai-poll-after-ms" not in polled.headers
        assert (await api.ours.get(f"{path}/{file_id}/content")).json() == {
            "object": "vector_store.file_content.page",
            "data": [{"type": "text", "text": TEXTS["gate.txt"]}],
            "has_more": False,
            "next_page": None,
        }
        assert await searched(api, store_id, "When does the gate open?") == ["gate.txt"]
        deleted = (await api.ours.delete(f"{path}/{file_id}")).json()
        assert deleted == {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
        assert await searched(api, store_id, "When does the gate open?") == []
        assert (await api.ours.get(f"{FILES}/{file_id}")).status_code == 200
        assert (await api.ours.get(f"{STORES}/{store_id}")).json()["file_counts"] == NO_FILES

    async def test_the_text_is_told_once(self, api: Api) -> None:
        """Chunks overlap; the content is the file's text, nothing twice and nothing missing."""
        text = " ".join(f"Sentence number {n} tells of the harbour." for n in range(200))
        sizes = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}
        strategy = {"type": "static", "static": sizes}
        store_id, (file_id,) = await filled(api, {"long.txt": text}, chunking_strategy=strategy)
        path = f"{STORES}/{store_id}/files/{file_id}"
        assert (await api.ours.get(path)).json()["chunking_strategy"] == strategy
        content = (await api.ours.get(f"{path}/content")).json()["data"]
        assert len(content) > 10
        assert "".join(each["text"] for each in content) == text

    async def test_one_that_cannot_be_read(self, api: Api) -> None:
        """Has failed and says why; it disturbs no other, and the counts say so."""
        files = {"file": ("broken.txt", b"\xff\xfe\xff")}
        broken = (await api.ours.post(FILES, data={"purpose": "assistants"}, files=files)).json()["id"]
        store = await make(api, file_ids=[broken, await upload(api, TEXTS["cats.txt"], "cats.txt")])
        store = await ingested(api, store["id"])
        assert store["file_counts"] == counts(completed=1, failed=1)
        assert store["status"] == "completed"
        failed = (await api.ours.get(f"{STORES}/{store['id']}/files/{broken}")).json()
        assert failed["status"] == "failed"
        assert failed["last_error"] == {"code": "unsupported_file", "message": "This is no text."}
        listed = await api.ours.get(f"{STORES}/{store['id']}/files", params={"filter": "failed"})
        assert [each["id"] for each in listed.json()["data"]] == [broken]
        assert await searched(api, store["id"], "cat") == ["cats.txt"]

    async def test_a_file_that_is_deleted(self, api: Api) -> None:
        """Is in no store any more, and nothing finds what was in it."""
        store_id, ids = await filled(api, TEXTS)
        assert "gate.txt" in await searched(api, store_id, "harbour gate")
        await api.ours.delete(f"{FILES}/{ids[0]}")
        assert "gate.txt" not in await searched(api, store_id, "harbour gate")
        assert (await api.ours.get(f"{STORES}/{store_id}")).json()["file_counts"] == counts(completed=2)
        assert (await api.ours.get(f"{STORES}/{store_id}/files/{ids[0]}")).status_code == 404

    @pytest.mark.parametrize(
        ("attributes", "fine"),
        [
            ({str(i): i for i in range(16)}, True),
            ({str(i): i for i in range(17)}, False),
            ({"k" * 64: "v" * 512}, True),
            ({"k" * 65: 1}, False),
            ({"k": "v" * 513}, False),
            ({"k": None}, False),
            ({"k": ["a"]}, False),
            ({"k": -1.5e10, "l": False}, True),
            (None, True),
        ],
    )
    async def test_attributes(self, api: Api, attributes: Any, fine: bool) -> None:
        """16 keys of 64 characters; texts of 512, numbers, true and false."""
        store_id, (file_id,) = await filled(api, {"a.txt": "text"})
        response = await api.ours.post(f"{STORES}/{store_id}/files/{file_id}", json={"attributes": attributes})
        assert response.status_code == (200 if fine else 400)
        if fine:
            assert response.json()["attributes"] == (attributes or {})


class TestBatches:
    @pytest.mark.compat(OF_VECTOR_STORES, "file batches: create (`file_ids`, `files`), get, cancel, files")
    async def test_a_life(self, api: Api) -> None:
        """All or none; each file as it is wanted; counted as a batch."""
        store_id = (await make(api))["id"]
        path = f"{STORES}/{store_id}/file_batches"
        one, two = [await upload(api, text, name) for name, text in list(TEXTS.items())[:2]]
        missing = await api.ours.post(path, json={"file_ids": [one, "file-none"]})
        assert error(missing) == (404, "not_found", "file_ids")
        assert (await api.ours.get(f"{STORES}/{store_id}")).json()["file_counts"] == NO_FILES
        files = [{"file_id": one, "attributes": {"n": 1}}, {"file_id": two, "attributes": {"n": 2}}]
        made = await api.ours.post(path, json={"files": files})
        batch = made.json()
        assert batch == {
            "id": batch["id"],
            "object": "vector_store.files_batch",
            "created_at": START,
            "vector_store_id": store_id,
            "status": "in_progress",
            "file_counts": counts(in_progress=2),
        }
        assert int(made.headers["openai-poll-after-ms"]) > 0
        await ingested(api, store_id)
        done = await api.ours.get(f"{path}/{batch['id']}")
        assert (done.json()["status"], done.json()["file_counts"]) == ("completed", counts(completed=2))
        assert "openai-poll-after-ms" not in done.headers
        listed = (await api.ours.get(f"{path}/{batch['id']}/files")).json()
        assert {each["id"]: each["attributes"] for each in listed["data"]} == {one: {"n": 1}, two: {"n": 2}}
        assert await searched(api, store_id, "cat", filters=eq("n", 1)) == ["gate.txt"]
        cancelled = (await api.ours.post(f"{path}/{batch['id']}/cancel")).json()
        assert cancelled == done.json()

    async def test_cancelling(self, api: Api) -> None:
        """What has not begun is not put in, and is counted as cancelled."""
        store_id = (await make(api))["id"]
        path = f"{STORES}/{store_id}/file_batches"
        ids = [await upload(api) for _ in range(3)]
        batch = (await api.ours.post(path, json={"file_ids": ids})).json()
        cancelled = (await api.ours.post(f"{path}/{batch['id']}/cancel")).json()
        assert (cancelled["status"], cancelled["file_counts"]) == ("cancelled", counts(cancelled=3))
        store = await ingested(api, store_id)
        assert (store["status"], store["file_counts"]) == ("completed", counts(cancelled=3))

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "file_ids"),
            ({"file_ids": []}, "file_ids"),
            ({"files": []}, "files"),
            ({"file_ids": ["a"], "files": [{"file_id": "a"}]}, "file_ids"),
            ({"files": [{"file_id": "a"}], "attributes": {"a": 1}}, "attributes"),
            ({"files": [{"file_id": "a"}], "chunking_strategy": {"type": "auto"}}, "chunking_strategy"),
            ({"files": [{"file_id": "a"}, {"file_id": "a"}]}, "files"),
        ],
    )
    async def test_wrong_bodies(self, api: Api, body: dict[str, Any], param: str) -> None:
        """400 that names what is wrong."""
        store_id = (await make(api))["id"]
        response = await api.ours.post(f"{STORES}/{store_id}/file_batches", json=body)
        assert error(response) == (400, "invalid_value", param)


class TestSearch:
    @pytest.mark.compat(
        OF_VECTOR_STORES, "search: `query` (text or list), `filters`, `max_num_results`, `ranking_options`"
    )
    async def test_whole(self, api: Api) -> None:
        """A page as OpenAI's, best first, scores from 0 to 1, attributes with it."""
        store_id, ids = await filled(api, TEXTS)
        attributes = {"attributes": {"topic": "port"}}
        assert (await api.ours.post(f"{STORES}/{store_id}/files/{ids[0]}", json=attributes)).status_code == 200
        response = await api.ours.post(
            f"{STORES}/{store_id}/search", json={"query": "When does the harbour gate open?"}
        )
        page = response.json()
        first = page["data"][0]
        assert page == {
            "object": "vector_store.search_results.page",
            "search_query": ["When does the harbour gate open?"],
            "data": page["data"],
            "has_more": False,
            "next_page": None,
        }
        assert first == {
            "file_id": ids[0],
            "filename": "gate.txt",
            "score": first["score"],
            "attributes": {"topic": "port"},
            "content": [{"type": "text", "text": TEXTS["gate.txt"]}],
        }
        assert all(0 <= each["score"] <= 1 for each in page["data"])

    async def test_what_is_asked_for(self, api: Api) -> None:
        """Several queries, fewer results, filters, thresholds and weights."""
        store_id, ids = await filled(api, TEXTS)
        for number, file_id in enumerate(ids):
            await api.ours.post(f"{STORES}/{store_id}/files/{file_id}", json={"attributes": {"n": number}})
        both = await searched(api, store_id, ["harbour gate opens", "cat sleeps"], max_num_results=2)  # type: ignore[arg-type]  # a list too
        assert set(both) == {"gate.txt", "cats.txt"}
        assert len(await searched(api, store_id, "the", max_num_results=1)) == 1
        filters = {"type": "or", "filters": [eq("n", 1), {"type": "gt", "key": "n", "value": 1}]}
        assert set(await searched(api, store_id, "harbour", filters=filters)) == {"cats.txt", "rope.txt"}
        assert await searched(api, store_id, "rope", filters={"type": "in", "key": "n", "value": [2, "x"]}) == [
            "rope.txt"
        ]
        assert await searched(api, store_id, "rope", filters=eq("n", "2")) == []
        high = {"score_threshold": 0.99}
        assert await searched(api, store_id, "unlike", ranking_options=high) == []
        words = {"ranker": "auto", "hybrid_search": {"embedding_weight": 0, "text_weight": 1}}
        assert (await searched(api, store_id, "coins", ranking_options=words))[0] == "rope.txt"
        assert (await searched(api, store_id, "coins", rewrite_query=True))[0] == "rope.txt"

    @pytest.mark.parametrize(
        ("body", "param"),
        [
            ({}, "query"),
            ({"query": ""}, "query"),
            ({"query": []}, "query"),
            ({"query": "x" * 8193}, "query"),
            ({"query": "x", "max_num_results": 0}, "max_num_results"),
            ({"query": "x", "max_num_results": 51}, "max_num_results"),
            ({"query": "x", "filters": {"type": "like", "key": "a", "value": 1}}, "filters"),
            ({"query": "x", "filters": {"type": "eq", "key": "a"}}, "filters.value"),
            ({"query": "x", "filters": {"type": "gt", "key": "a", "value": True}}, "filters.value"),
            ({"query": "x", "filters": {"type": "and", "filters": []}}, "filters.filters"),
            ({"query": "x", "ranking_options": {"ranker": "best"}}, "ranking_options.ranker"),
            ({"query": "x", "ranking_options": {"score_threshold": 1.5}}, "ranking_options.score_threshold"),
            (
                {"query": "x", "ranking_options": {"hybrid_search": {"embedding_weight": 0, "text_weight": 0}}},
                "ranking_options.hybrid_search",
            ),
            ({"query": "x", "rank": 1}, "rank"),
        ],
    )
    async def test_wrong_bodies(self, api: Api, body: dict[str, Any], param: str) -> None:
        """400 that names what is wrong."""
        store_id = (await make(api))["id"]
        response = await api.ours.post(f"{STORES}/{store_id}/search", json=body)
        assert response.status_code == 400
        assert str(error(response)[2]).startswith(param)

    @pytest.mark.parametrize("broad", [True, False])
    async def test_filters_have_bounds(self, api: Api, broad: bool) -> None:
        """In their number and in their depth."""
        store_id = (await make(api))["id"]
        filters: dict[str, Any] = eq("a", 1)
        for _ in range(2 if broad else 20):
            filters = {"type": "and", "filters": [filters] * (9 if broad else 1)}
        response = await api.ours.post(f"{STORES}/{store_id}/search", json={"query": "x", "filters": filters})
        assert error(response) == (400, "invalid_value", "filters")

    async def test_another_embedding_model(self, sqlite_database: Database, smollm2: Path, minilm: Path) -> None:
        """Vectors of different models are not compared: the search says so, and what else there is goes on."""
        pin = EmbeddingPin(model="other", digest="0", dimensions=3, window_tokens=8)
        async with api_for(sqlite_database, smollm2, minilm, pin=pin) as api:
            store = await make(api)
            response = await api.ours.post(f"{STORES}/{store['id']}/search", json={"query": "x"})
            assert error(response)[:2] == (503, "embedding_model_changed")
            assert (await api.ours.get(f"{STORES}/{store['id']}")).status_code == 200

    @pytest.mark.parametrize("at_once", [5_000, 0])
    async def test_a_deleted_store_is_forgotten(self, api: Api, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
        """Its index is in no memory any more; a large one, which is emptied before, likewise."""
        monkeypatch.setattr("frontend.services.vector_stores.DELETED_AT_ONCE", at_once)
        store_id, _ = await filled(api, TEXTS)
        await searched(api, store_id, "gate")
        assert len(api.catalog) == 1
        assert (await api.ours.delete(f"{STORES}/{store_id}")).status_code == 200
        assert len(api.catalog) == 0
        assert (await api.ours.get(f"{STORES}/{store_id}")).status_code == 404


def walk(store: str, file: str, batch: str) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Every route under /v1/vector_stores that names something."""
    base = f"{STORES}/{store}"
    return [
        ("GET", base, None),
        ("POST", base, {"name": "mine"}),
        ("DELETE", base, None),
        ("POST", f"{base}/search", {"query": "gate"}),
        ("GET", f"{base}/files", None),
        ("POST", f"{base}/files", {"file_id": file}),
        ("GET", f"{base}/files/{file}", None),
        ("POST", f"{base}/files/{file}", {"attributes": {}}),
        ("DELETE", f"{base}/files/{file}", None),
        ("GET", f"{base}/files/{file}/content", None),
        ("POST", f"{base}/file_batches", {"file_ids": [file]}),
        ("GET", f"{base}/file_batches/{batch}", None),
        ("POST", f"{base}/file_batches/{batch}/cancel", None),
        ("GET", f"{base}/file_batches/{batch}/files", None),
    ]


class TestOthers:
    async def test_whatever_is_anothers_is_not_there(self, api: Api) -> None:
        """On every route, by every id that it takes: 404, in the bytes of one that was never there."""
        store_id, (file_id,) = await filled(api, {"gate.txt": TEXTS["gate.txt"]})
        batch = await api.ours.post(f"{STORES}/{store_id}/file_batches", json={"file_ids": [await upload(api)]})
        batch_id = batch.json()["id"]
        await ingested(api, store_id)
        mine = (await api.theirs.post(STORES, json={})).json()["id"]
        own = await api.theirs.post(FILES, data={"purpose": "assistants"}, files={"file": ("a.txt", b"a")})
        own_file = own.json()["id"]
        before = (await api.ours.get(f"{STORES}/{store_id}")).json()

        requests = [
            *walk(store_id, file_id, batch_id),
            *walk(store_id, own_file, batch_id),
            *(each for each in walk(mine, file_id, batch_id) if file_id in str(each) or batch_id in str(each)),
            ("POST", STORES, {"file_ids": [own_file, file_id]}),
        ]
        foreign = [told(await api.theirs.request(method, path, json=body)) for method, path, body in requests]
        assert [each[0] for each in foreign] == [404] * len(requests)
        assert (await api.ours.get(f"{STORES}/{store_id}")).json() == before
        await api.ours.delete(f"{STORES}/{store_id}")
        await api.ours.delete(f"{FILES}/{file_id}")
        assert foreign == [told(await api.theirs.request(method, path, json=body)) for method, path, body in requests]

    async def test_the_walk_is_whole(self, api: Api) -> None:
        """Every route of the page that has an id in its path is walked."""
        walked = {(method, path) for method, path, _ in walk("{vector_store_id}", "{file_id}", "{batch_id}")}
        paths = api.app.openapi_schema.to_schema()["paths"]
        there = {
            (method.upper(), path)
            for path, methods in paths.items()
            for method in methods
            if "{vector_store_id}" in path
        }
        assert walked == there
