"""What a request may ask for: the bounds of docs/security.md, each at its edge, and the shape of every body.

The second half goes through the types of all bodies, as the routes have them: a new field without a bound, or a new body that
takes unknown fields, is found without anybody thinking of it here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from litestar.routes import HTTPRoute
from msgspec import inspect

from frontend import settings
from frontend.api.items.schema import KINDS as ITEMS
from frontend.api.responses.schema import TOOLS
from frontend.app import create_app
from frontend.domain import model_card
from frontend.domain.hermes.encoder import Encoder
from frontend.services.tokenize import CHARS_PER_TOKEN
from tests.fakes.engine import FakeEngine
from tests.fakes.words import WordsEmbedder
from tests.support.app import client_for

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
HELLO = {"role": "user", "content": "Hello"}
WINDOW = 512


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(smollm2: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for(
        FakeEngine(says=["."]), smollm2, None, WordsEmbedder(), ENGINE_MAX_MODEL_LEN=str(WINDOW)
    ) as client:
        yield client


async def asked(http: httpx.AsyncClient, path: str = CHAT, **fields: Any) -> tuple[int, str | None]:
    """Status, and what is wrong."""
    body: dict[str, Any] = {"model": "hermes-2"} | ({"messages": [HELLO]} if path == CHAT else {}) | fields
    response = await http.post(path, content=json.dumps(body))
    return response.status_code, response.json().get("error", {}).get("param")


@pytest.mark.parametrize(
    ("most", "beyond", "param"),
    [
        ({"n": 8}, {"n": 9}, "n"),
        ({"logprobs": True, "top_logprobs": 20}, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["a"] * 4}, {"stop": ["a"] * 5}, "stop"),
        ({"stop": "a" * 64}, {"stop": "a" * 65}, "stop"),
        ({"stop": ["é" * 32]}, {"stop": ["é" * 33]}, "stop"),
        (
            {"logit_bias": {str(i): 1 for i in range(300)}},
            {"logit_bias": {str(i): 1 for i in range(301)}},
            "logit_bias",
        ),
        ({"logit_bias": {"1": 100}}, {"logit_bias": {"1": 100.5}}, "logit_bias"),
        ({"stop_token_ids": [1] * 64}, {"stop_token_ids": [1] * 65}, "stop_token_ids"),
        ({"max_tokens": 5, "min_tokens": 5}, {"max_tokens": 5, "min_tokens": 6}, "min_tokens"),
        ({"temperature": 2}, {"temperature": 2.01}, "temperature"),
        ({"presence_penalty": -2}, {"presence_penalty": -2.01}, "presence_penalty"),
        ({"repetition_penalty": 10}, {"repetition_penalty": 10.01}, "repetition_penalty"),
        ({"metadata": {"k": "v" * 512}}, {"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {str(i): "" for i in range(16)}}, {"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"user": "u" * 512}, {"user": "u" * 513}, "user"),
    ],
    ids=lambda each: str(each)[:60],
)
async def test_a_bound_holds_at_its_edge(
    http: httpx.AsyncClient, most: Mapping[str, Any], beyond: Mapping[str, Any], param: str
) -> None:
    """The most is taken, one more is refused by its name."""
    assert await asked(http, **most) == (200, None)
    assert await asked(http, **beyond) == (400, param)


async def test_ids_of_tokens_are_those_of_the_model(http: httpx.AsyncClient, smollm2: Path) -> None:
    """Biases, stops and prompts name tokens that there are."""
    last = Encoder.from_folder(model_card.files_of(smollm2, model_card.read(smollm2))).vocab_size - 1
    fields: tuple[tuple[str, list[Any]], ...] = (
        ("logit_bias", [{str(last): 1}, {str(last + 1): 1}]),
        ("stop_token_ids", [[last], [last + 1]]),
    )
    for name, values in fields:
        assert [await asked(http, **{name: value}) for value in values] == [(200, None), (400, name)]
    for prompt, answer in (([last], (200, None)), ([last + 1], (400, "prompt")), ([[1], [last + 1]], (400, "prompt"))):
        assert await asked(http, "/v1/completions", prompt=prompt) == answer


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
async def test_numbers_are_finite(http: httpx.AsyncClient, number: str) -> None:
    """Nowhere is there one that is none, nor one that becomes none: sampling, weights, thresholds, attributes."""
    store = (await http.post("/v1/vector_stores", json={})).json()["id"]
    form = {"file": ("a.txt", b"a")}
    file_id = (await http.post("/v1/files", data={"purpose": "assistants"}, files=form)).json()["id"]
    ranking = '{"ranking_options": {"hybrid_search": {"embedding_weight": %s}}, "query": "x"}'
    for path, body in (
        (CHAT, '{"model": "hermes-2", "messages": [{"role": "user", "content": "x"}], "temperature": %s}'),
        (CHAT, '{"model": "hermes-2", "messages": [{"role": "user", "content": "x"}], "logit_bias": {"1": %s}}'),
        ("/v1/responses", '{"model": "hermes-2", "input": "x", "top_p": %s}'),
        (f"/v1/vector_stores/{store}/search", ranking),
        (f"/v1/vector_stores/{store}/search", '{"query": "x", "filters": {"type": "gt", "key": "a", "value": %s}}'),
        (f"/v1/vector_stores/{store}/files", f'{{"file_id": "{file_id}", "attributes": {{"a": %s}}}}'),
    ):
        response = await http.post(path, content=body % number)
        assert response.status_code == 400, f"{path} {body}: {response.text}"


async def test_characters_are_counted_before_they_are_tokenised(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text that no window holds is refused unread, on every way to a prompt."""
    long = "a" * (CHARS_PER_TOKEN * WINDOW + 1)
    message = {"role": "user", "content": long}
    conversation = (await http.post("/v1/conversations", json={})).json()["id"]
    monkeypatch.setattr(Encoder, "encode", unread(Encoder.encode))
    assert await asked(http, messages=[message]) == (400, "messages")
    assert await asked(http, messages=[HELLO] * 20 + [message | {"role": "assistant"}, HELLO]) == (400, "messages")
    tool = {"type": "function", "function": {"name": "f", "description": long}}
    assert await asked(http, tools=[tool]) == (400, "messages")
    assert await asked(http, messages=[message], conversation=conversation) == (400, "messages")
    assert await asked(http, "/v1/completions", prompt=["a", long]) == (400, "prompt")
    for path in ("/v1/responses", "/v1/responses/input_tokens", "/v1/responses/compact"):
        assert await asked(http, path, input=long) == (400, "input")
    assert await asked(http, "/v1/responses", input="x", instructions=long) == (400, "input")
    assert await asked(http, "/v1/responses", input="x", conversation=conversation, instructions=long) == (400, "input")
    for path in ("/v1/conversations", f"/v1/conversations/{conversation}/items", "/v1/sessions"):
        response = await http.post(path, json={"items": [message]})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "items")


def unread(encode: Any) -> Any:
    def encoding(self: Encoder, text: str) -> list[int]:
        assert len(text) <= CHARS_PER_TOKEN * WINDOW, f"{len(text)} characters are tokenised"
        ids: list[int] = encode(self, text)
        return ids

    return encoding


async def test_a_body_that_is_cut_off_is_the_clients_failure(http: httpx.AsyncClient) -> None:
    """Who leaves in the middle of a body, or sends chunks that are none, is no error of the service, and no traceback."""
    received = [{"type": "http.request", "body": b'{"model', "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return received.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    request = http.build_request("POST", CHAT, json={})
    headers = [(name.lower(), value) for name, value in request.headers.raw if name.lower() != b"content-length"]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
    }
    scope |= {"path": CHAT, "raw_path": CHAT.encode(), "root_path": "", "query_string": b"", "headers": headers}
    transport: Any = http._transport
    await transport.app(scope | {"server": ("hermes2", 80), "client": ("127.0.0.1", 1)}, receive, send)
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["error"]["code"] == "incomplete_body"


def bodies() -> dict[str, type]:
    """The type of each route's body."""
    variables = {"HERMES2_MODEL_DIR": "/nowhere", "HERMES2_EMBEDDER_ENABLED": "true"}
    app = create_app(settings.load(variables))
    found: dict[str, type] = {}
    for route in app.routes:
        if isinstance(route, HTTPRoute):
            for method, (handler, _) in route.route_handler_map.items():
                if (data := handler.parsed_fn_signature.parameters.get("data")) is not None:
                    found[f"{method} {route.path_format}"] = data.annotation
    return found


BODIES = bodies() | {f"item {name}": kind for name, kind in {**ITEMS, **TOOLS}.items()}
"""With the objects that bodies hold as any object, and that are read by their `type`."""
OPEN = {"InputReasoning", "InputImagePart", "InputFilePart", "InputAudioPart"}
"""Refused or left out as a whole, whatever is in them."""
BOUNDED_LATER = {
    "SamplingParameters.n": "limits.n",
    "CreateEmbedding.dimensions": "one value is right",
    "CreateCompletion.prompt": "the vocabulary",
}
"""Numbers whose bound is no part of the type, and where it is."""


def owner_of(kind: type, field: str) -> str:
    """The class that has brought the field."""
    ancestors = [each for each in kind.__mro__ if each is not msgspec.Struct and issubclass(each, msgspec.Struct)]
    return next((each.__name__ for each in reversed(ancestors) if field in each.__struct_fields__), kind.__name__)


def walk(kind: inspect.Type, where: str, seen: set[type]) -> Iterator[tuple[str, inspect.Type]]:
    """Every type inside, and its place: Struct.field."""
    yield where, kind
    match kind:
        case inspect.StructType():
            if kind.cls not in seen:
                seen.add(kind.cls)
                for field in kind.fields:
                    owner = owner_of(kind.cls, field.encode_name)
                    yield from walk(field.type, f"{owner}.{field.encode_name}", seen)
        case inspect.UnionType():
            for each in kind.types:
                yield from walk(each, where, seen)
        case inspect.ListType() | inspect.SetType() | inspect.VarTupleType():
            yield from walk(kind.item_type, where, seen)
        case inspect.DictType():
            yield from walk(kind.key_type, where, seen)
            yield from walk(kind.value_type, where, seen)
        case inspect.Metadata():
            yield from walk(kind.type, where, seen)


def types_of(body: type) -> list[tuple[str, inspect.Type]]:
    return list(walk(inspect.type_info(body), body.__name__, set()))


async def test_there_are_bodies() -> None:
    """The routes are found."""
    assert len(BODIES) >= 18


@pytest.mark.parametrize("route", BODIES)
async def test_unknown_fields_are_refused(route: str) -> None:
    """In every object of every body: what nobody reads is not taken, or is on a list of what is ignored."""
    for where, kind in types_of(BODIES[route]):
        if isinstance(kind, inspect.StructType) and kind.cls.__name__ not in OPEN:
            assert kind.forbid_unknown_fields, f"{where}: {kind.cls.__name__}"


@pytest.mark.parametrize("route", BODIES)
async def test_every_number_has_a_bound(route: str) -> None:
    """Both ways."""
    for where, kind in types_of(BODIES[route]):
        if isinstance(kind, inspect.IntType) and where not in BOUNDED_LATER:
            assert kind.ge is not None or kind.gt is not None, where
            assert kind.le is not None or kind.lt is not None, where
