"""The bodies of /v1/files and /v1/vector_stores are OpenAI's (its specification is skipped where it is not at hand), and
its SDK, validating, reads them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from frontend.domain.storage import Database
from tests.support.compatibility import OF_FILES, OF_VECTOR_STORES
from tests.support.retrieval_api import FILES, STORES, Api, api_for, filled, make, upload
from tests.support.spec import validator

GATE = "The harbour gate opens at seven in the morning."
EXPIRY = {"anchor": "last_active_at", "days": 7}


@pytest.fixture
async def api(sqlite_database: Database, smollm2: Path, minilm: Path) -> AsyncIterator[Api]:
    async with api_for(sqlite_database, smollm2, minilm) as api:
        yield api


@pytest.mark.compat(OF_FILES, "every body is of OpenAI's specification")
async def test_files(api: Api, openai_spec: dict[str, Any]) -> None:
    """With and without expiry, alone and in lists, and the deletion."""
    file = validator(openai_spec, "OpenAIFile")
    expiring = await upload(api, **{"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"})
    for file_id in (expiring, await upload(api)):
        file.validate((await api.ours.get(f"{FILES}/{file_id}")).json())
    listed = (await api.ours.get(FILES)).json()
    validator(openai_spec, "ListFilesResponse").validate(listed)
    assert len(listed["data"]) == 2
    validator(openai_spec, "ListFilesResponse").validate((await api.theirs.get(FILES)).json())
    validator(openai_spec, "DeleteFileResponse").validate((await api.ours.delete(f"{FILES}/{expiring}")).json())


@pytest.mark.compat(OF_VECTOR_STORES, "every body is of OpenAI's specification")
async def test_vector_stores(api: Api, openai_spec: dict[str, Any]) -> None:
    """Stores, their files and batches, in every status that they have here; contents, pages of results, deletions."""
    broken = await api.ours.post(FILES, data={"purpose": "assistants"}, files={"file": ("a.txt", b"\xff")})
    store_id, (file_id,) = await filled(api, {"gate.txt": GATE}, expires_after=EXPIRY)
    path = f"{STORES}/{store_id}"
    attributes = {"topic": "port", "year": 5, "ok": True}
    batch = await api.ours.post(
        f"{path}/file_batches", json={"file_ids": [broken.json()["id"]], "attributes": attributes}
    )
    batch_path = f"{path}/file_batches/{batch.json()['id']}"
    in_progress = [(await api.ours.get(each)).json() for each in (path, f"{path}/files", batch_path)]
    async with api.ingest.running():
        while (await api.ours.get(batch_path)).json()["status"] == "in_progress":
            pass
    made = await make(api, expires_after=EXPIRY)
    other = await api.ours.post(f"{STORES}/{made['id']}/file_batches", json={"file_ids": [file_id]})
    other_path = f"{STORES}/{made['id']}/file_batches/{other.json()['id']}"
    cancelled = (await api.ours.post(f"{other_path}/cancel")).json()

    store, batches = validator(openai_spec, "VectorStoreObject"), validator(openai_spec, "VectorStoreFileBatchObject")
    for each in (made, in_progress[0], (await api.ours.get(path)).json()):
        store.validate(each)
    validator(openai_spec, "ListVectorStoresResponse").validate((await api.ours.get(STORES)).json())
    for each in (batch.json(), in_progress[2], (await api.ours.get(batch_path)).json(), cancelled):
        batches.validate(each)
    assert {each["status"] for each in ((await api.ours.get(batch_path)).json(), cancelled)} == {"failed", "cancelled"}
    files = validator(openai_spec, "ListVectorStoreFilesResponse")
    paths = [f"{path}/files", f"{batch_path}/files", f"{other_path}/files"]
    shown = [in_progress[1], *[(await api.ours.get(each)).json() for each in paths]]
    for page in shown:
        files.validate(page)
    statuses = {each["status"] for page in shown for each in page["data"]}
    assert statuses == {"in_progress", "completed", "failed", "cancelled"}
    one = validator(openai_spec, "VectorStoreFileObject")
    one.validate((await api.ours.get(f"{path}/files/{file_id}")).json())
    one.validate((await api.ours.post(f"{path}/files/{file_id}", json={"attributes": attributes})).json())
    content = (await api.ours.get(f"{path}/files/{file_id}/content")).json()
    validator(openai_spec, "VectorStoreFileContentResponse").validate(content)
    results = (await api.ours.post(f"{path}/search", json={"query": "harbour gate"})).json()
    assert results["data"][0]["attributes"] == attributes
    validator(openai_spec, "VectorStoreSearchResultsPage").validate(results)
    deleted = (await api.ours.delete(f"{path}/files/{file_id}")).json()
    validator(openai_spec, "DeleteVectorStoreFileResponse").validate(deleted)
    validator(openai_spec, "DeleteVectorStoreResponse").validate((await api.ours.delete(path)).json())


@pytest.mark.compat(OF_FILES, "the SDK's strict validation; `files.wait_for_processing`")
async def test_files_in_the_sdk(api: Api) -> None:
    """create, retrieve, wait_for_processing, list, content, delete."""
    made = await api.sdk.files.create(
        file=("note.txt", GATE.encode()),
        purpose="user_data",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert made.expires_at == made.created_at + 3600
    assert await api.sdk.files.wait_for_processing(made.id) == made == await api.sdk.files.retrieve(made.id)
    assert [each.id async for each in api.sdk.files.list(purpose="user_data", limit=1)] == [made.id]
    assert (await api.sdk.files.content(made.id)).content == GATE.encode()
    assert (await api.sdk.files.delete(made.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await api.sdk.files.retrieve(made.id)


@pytest.mark.compat(
    OF_VECTOR_STORES, "the SDK's strict validation; `files.upload_and_poll`, `file_batches.upload_and_poll`"
)
async def test_vector_stores_in_the_sdk(api: Api) -> None:
    """Every method, those that poll too."""
    stores = api.sdk.vector_stores
    store = await stores.create(name="facts", expires_after={"anchor": "last_active_at", "days": 7})
    async with api.ingest.running():
        file = await stores.files.upload_and_poll(vector_store_id=store.id, file=("gate.txt", GATE.encode()))
        batch = await stores.file_batches.upload_and_poll(
            store.id, files=[("cats.txt", b"A cat sleeps all day."), ("rope.txt", b"The rope costs twelve coins.")]
        )
    assert file.status == "completed"
    assert (batch.status, batch.file_counts.completed) == ("completed", 2)
    assert (await stores.file_batches.retrieve(batch.id, vector_store_id=store.id)) == batch
    assert len([each async for each in stores.file_batches.list_files(batch.id, vector_store_id=store.id)]) == 2
    assert (await stores.file_batches.cancel(batch.id, vector_store_id=store.id)) == batch
    updated = await stores.files.update(file.id, vector_store_id=store.id, attributes={"topic": "port", "year": 5})
    assert updated.attributes == {"topic": "port", "year": 5.0}
    listed = [each async for each in stores.files.list(store.id, limit=1, filter="completed")]
    assert len(listed) == 3
    assert await stores.files.retrieve(file.id, vector_store_id=store.id) == updated
    contents = [each async for each in stores.files.content(file.id, vector_store_id=store.id)]
    assert [each.text for each in contents] == [GATE]
    found = [
        each
        async for each in stores.search(
            store.id,
            query=["When does the gate open?"],
            filters={"type": "and", "filters": [{"type": "eq", "key": "topic", "value": "port"}]},
            max_num_results=5,
            ranking_options={"ranker": "auto", "score_threshold": 0.0},
        )
    ]
    assert [(each.filename, each.content[0].text) for each in found] == [("gate.txt", GATE)]
    assert (await stores.update(store.id, name="more facts")).name == "more facts"
    assert (await stores.retrieve(store.id)).file_counts.completed == 3
    assert [each.id async for each in stores.list()] == [store.id]
    assert (await stores.files.delete(file.id, vector_store_id=store.id)).deleted
    assert (await stores.delete(store.id)).deleted
