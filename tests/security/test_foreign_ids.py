"""Every id of the API, on every route that takes one: another tenant's is answered like one that nobody has.

The matrix comes from the application's own route table: a route with a parameter of a new kind, or one that is not known
here how to ask, makes these tests fail.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from litestar.routes import HTTPRoute

from tests.fakes.engine import FakeEngine
from tests.fakes.words import WordsEmbedder
from tests.support.app import temporary_database
from tests.support.tenants import Api, api_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

PREFIXES = {
    "completion_id": "chatcmpl-",
    "conversation_id": "conv_",
    "item_id": "msg_",
    "response_id": "resp_",
    "session_id": "sess_",
    "file_id": "file-",
    "vector_store_id": "vs_",
    "batch_id": "vsfb_",
}
"""Parameters of paths that name what a tenant has, and how such ids begin."""
NO_TENANTS = {"model_id", "key_id", "path"}
"""Models and the page of the API are everybody's; keys are managed by administrators of all tenants, and by nobody else."""
HELLO = {"role": "user", "content": "Hello"}
CHAT: dict[str, Any] = {"model": "hermes-2", "messages": [HELLO]}
BODIES: Mapping[str, Any] = {
    "POST /v1/chat/completions/{completion_id}": {"metadata": {}},
    "POST /v1/conversations/{conversation_id}": {"metadata": {}},
    "POST /v1/conversations/{conversation_id}/items": {"items": [HELLO]},
    "POST /v1/vector_stores/{vector_store_id}": {"name": "new"},
    "POST /v1/vector_stores/{vector_store_id}/file_batches": {"file_ids": ["{file_id}"]},
    "POST /v1/vector_stores/{vector_store_id}/files": {"file_id": "{file_id}"},
    "POST /v1/vector_stores/{vector_store_id}/files/{file_id}": {"attributes": {}},
    "POST /v1/vector_stores/{vector_store_id}/search": {"query": "Hello"},
}
"""What a route must be sent before it looks for what its path names. `{file_id}`: the asking tenant's own."""


class Inlet(msgspec.Struct, frozen=True):
    """A place beside the path where a request may name what a tenant has; `{}` stands for the id."""

    path: str
    kind: str
    body: Any
    answer: int = 404
    headers: Mapping[str, str] = {}


RESPONSE: dict[str, Any] = {"model": "hermes-2", "input": "Hello"}
REFERENCE = {"type": "item_reference", "id": "{}"}
STORES, OWN_STORE = "/v1/vector_stores", "/v1/vector_stores/{vector_store_id}"
CONVERSATIONS, OWN_CONVERSATION = "/v1/conversations", "/v1/conversations/{conversation_id}"
GENERATING = {"/v1/chat/completions": CHAT, "/v1/responses": RESPONSE, "/v1/responses/input_tokens": RESPONSE}
OF_A_CONVERSATION: Sequence[dict[str, Any]] = ({"conversation": "{}"}, {"conversation": {"id": "{}"}})
SEARCHED: dict[str, Any] = {"tools": [{"type": "file_search", "vector_store_ids": ["{}"]}]}
ATTACHED = {"context": {"vector_store_ids": ["{}"]}}
INLETS = [
    *(Inlet(path, "conversation_id", body | each) for path, body in GENERATING.items() for each in OF_A_CONVERSATION),
    *(Inlet(path, "vector_store_id", body | SEARCHED) for path, body in GENERATING.items()),
    *(Inlet(path, "session_id", body, headers={"x-session-id": "{}"}) for path, body in GENERATING.items()),
    *(
        Inlet(path, *each)
        for path in ("/v1/responses", "/v1/responses/input_tokens", "/v1/responses/compact")
        for each in (
            ("response_id", RESPONSE | {"previous_response_id": "{}"}, 400),
            ("item_id", RESPONSE | {"input": [HELLO, REFERENCE]}),
        )
    ),
    *(
        Inlet(path, "item_id", {"items": [REFERENCE]})
        for path in (CONVERSATIONS, f"{OWN_CONVERSATION}/items", "/v1/sessions")
    ),
    *(Inlet(path, "vector_store_id", ATTACHED) for path in (CONVERSATIONS, OWN_CONVERSATION, "/v1/sessions")),
    *(Inlet("/v1/sessions", "conversation_id", each) for each in OF_A_CONVERSATION),
    Inlet(STORES, "file_id", {"file_ids": ["{}"]}),
    Inlet(f"{OWN_STORE}/files", "file_id", {"file_id": "{}"}),
    Inlet(f"{OWN_STORE}/file_batches", "file_id", {"file_ids": ["{}"]}),
    Inlet(f"{OWN_STORE}/file_batches", "file_id", {"files": [{"file_id": "{}"}]}),
]
TAKES_IDS = re.compile(r"conversation|previous_response_id|vector_store_ids?|file_ids?|files|items|input|tools|context")
"""Names of what, in a body, holds ids or what may hold them."""


def routes(app: Any) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Method, path and parameters' kinds of each route with parameters; OPTIONS and HEAD look nothing up."""
    for route in app._app.routes:
        assert isinstance(route, HTTPRoute)
        if route.path_parameters:
            for method in sorted(set(route.methods) - {"OPTIONS", "HEAD"}):
                yield method, route.path_format, {name: name for name in route.path_parameters}


def unknown(kind: str) -> str:
    return PREFIXES[kind] + "0" * 32


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(smollm2: Path) -> AsyncIterator[Api]:
    async with (
        temporary_database() as database,
        api_for(FakeEngine(says=["Hi."]), smollm2, database, WordsEmbedder()) as connected,
    ):
        yield connected


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own(api: Api) -> dict[str, str]:
    return await possessions(api.ours)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def theirs(api: Api) -> dict[str, str]:
    return await possessions(api.theirs)


async def made(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()
    return result


async def possessions(client: httpx.AsyncClient) -> dict[str, str]:
    """One of each kind; the session, the items and the response belong to the conversation, file and batch to the store."""
    conversation = (await made(client, "/v1/conversations", items=[HELLO]))["id"]
    items = (await client.get(f"/v1/conversations/{conversation}/items")).json()["data"]
    uploaded = await client.post(
        "/v1/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"Rain in spring.")}
    )
    file_id = uploaded.json()["id"]
    store = (await made(client, STORES))["id"]
    batch = (await made(client, f"{STORES}/{store}/file_batches", file_ids=[file_id]))["id"]
    await settled(client, f"{STORES}/{store}/file_batches/{batch}")
    response = (await made(client, "/v1/responses", **RESPONSE, background=True))["id"]
    await settled(client, f"/v1/responses/{response}")
    return {
        "conversation_id": conversation,
        "item_id": items[0]["id"],
        "response_id": response,
        "session_id": (await made(client, "/v1/sessions", conversation=conversation))["id"],
        "completion_id": (await made(client, "/v1/chat/completions", **CHAT, store=True))["id"],
        "file_id": file_id,
        "vector_store_id": store,
        "batch_id": batch,
    }


async def settled(client: httpx.AsyncClient, path: str) -> None:
    async with asyncio.timeout(20):
        while (await client.get(path)).json()["status"] != "completed":
            await asyncio.sleep(0.01)


def told(response: httpx.Response, ids: Mapping[str, str]) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers, with the ids that were asked for taken out."""
    text = response.text
    for each in ids.values():
        text = text.replace(each, "ID")
    headers = {name: value for name, value in response.headers.items() if name not in ("x-request-id", "date")}
    return response.status_code, text, headers


def fill(value: Any, replacements: Mapping[str, str]) -> Any:
    """`value` with `{name}` and `{}` in its texts replaced."""
    if isinstance(value, str):
        for name, each in replacements.items():
            value = value.replace(f"{{{name}}}", each)
        return value
    if isinstance(value, Mapping):
        return {key: fill(each, replacements) for key, each in value.items()}
    return [fill(each, replacements) for each in value] if isinstance(value, list) else value


async def state(client: httpx.AsyncClient, own: Mapping[str, str], app: Any) -> list[str]:
    """All that a tenant can read of what is theirs."""
    paths = [path for method, path, kinds in routes(app) if method == "GET" and kinds.keys() <= PREFIXES.keys()]
    return [(await client.get(fill(path, own))).text for path in paths]


def foreign_choices(kinds: Mapping[str, str], own: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[Any]:
    """Foreign ids for each parameter by itself, the rest being one's own, and for all of them."""
    names = [name for name in kinds if name in PREFIXES]
    for chosen in [[name] for name in names] + ([names] if len(names) > 1 else []):
        yield (
            {name: theirs[name] if name in chosen else own[name] for name in names},
            {name: unknown(name) if name in chosen else own[name] for name in names},
        )


async def test_every_parameter_of_a_path_is_of_a_known_kind(api: Api) -> None:
    """Who adds a route with a new kind of id says here whose it is, and gives these tests one."""
    for method, path, kinds in routes(api.app):
        assert kinds.keys() <= PREFIXES.keys() | NO_TENANTS, f"{method} {path}"


async def test_foreign_ids_in_paths_are_unknown_ids(api: Api, own: dict[str, str], theirs: dict[str, str]) -> None:
    """On every route and method: the same 404, byte for byte, and nothing of the owner's has changed."""
    before = await state(api.theirs, theirs, api.app)
    asked = 0
    for method, path, kinds in routes(api.app):
        if kinds.keys() <= NO_TENANTS:
            continue
        body = fill(BODIES.get(f"{method} {path}"), own)
        for foreign, none in foreign_choices(kinds, own, theirs):
            replies = [await api.ours.request(method, fill(path, ids), json=body) for ids in (foreign, none)]
            where = f"{method} {path} {foreign}"
            assert told(replies[0], foreign) == told(replies[1], none), where
            assert replies[0].status_code == 404, f"{where}: {replies[0].text}"
            asked += 1
    assert await state(api.theirs, theirs, api.app) == before
    assert asked >= 45


async def test_foreign_ids_in_bodies_and_headers_are_unknown_ids(
    api: Api, own: dict[str, str], theirs: dict[str, str]
) -> None:
    """Whatever the body or a header names is looked for among one's own things only."""
    for inlet in INLETS:
        replies = []
        for each in (theirs[inlet.kind], unknown(inlet.kind)):
            ids = own | {"": each}
            body, headers = fill(inlet.body, ids), fill(inlet.headers, ids)
            replies.append(told(await api.ours.post(fill(inlet.path, own), json=body, headers=headers), {"": each}))
        assert replies[0] == replies[1], inlet
        assert replies[0][0] == inlet.answer, f"{inlet}: {replies[0][1]}"


async def test_foreign_cursors_are_unknown_cursors(api: Api, own: dict[str, str], theirs: dict[str, str]) -> None:
    """`after` and `before` of every list: an id that is not in the list is wrong, whoever has it."""
    asked = 0
    for path in sorted({route.path_format for route in api.app._app.routes}):
        operation = api.app._app.openapi_schema.paths.get(path)
        parameters = operation.get.parameters if operation and operation.get else None
        for cursor in {each.name for each in parameters or ()} & {"after", "before"}:
            for kind, each in theirs.items():
                ids = {"foreign": each, "unknown": unknown(kind)}
                found = [await api.ours.get(fill(path, own), params={cursor: each}) for each in ids.values()]
                assert told(found[0], ids) == told(found[1], ids), f"{path} {cursor} {kind}"
                asked += 1
    assert asked >= 8 * len(theirs)


async def test_every_body_that_may_hold_ids_is_asked_here(api: Api) -> None:
    """The OpenAPI page tells which bodies have such fields; a new one is added to INLETS."""
    schema = api.app._app.openapi_schema.to_schema()
    known = {re.sub(r"\{.*?\}", "{}", inlet.path) for inlet in INLETS} | {
        re.sub(r"\{.*?\}", "{}", each.split(" ")[1]) for each in BODIES
    }
    for path, operations in schema["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {}).get("application/json")
        if content is None:
            continue
        name = content["schema"]["$ref"].rsplit("/", 1)[1]
        fields = schema["components"]["schemas"][name]["properties"]
        if any(TAKES_IDS.fullmatch(field) for field in fields):
            assert re.sub(r"\{.*?\}", "{}", path) in known | {"/v1/embeddings"}, path
