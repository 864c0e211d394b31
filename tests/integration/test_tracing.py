"""One request from the client's trace to the engine's own record of it, on the real service."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.support.otlp import Collector, SentSpan
from tests.support.stack import API_KEY, Stack

pytestmark = pytest.mark.real

CHAT = "/v1/chat/completions"
FRONTEND, ENGINE = "hermes2-frontend", "hermes2-engine"


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as client:
        yield client


def new_trace() -> tuple[str, Mapping[str, str]]:
    """Its id, and the header of a client that records it."""
    trace_id = secrets.token_hex(16)
    return trace_id, {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "hermes-2", "messages": [{"role": "user", "content": text}], "max_tokens": 4} | fields


def ended(trace: list[SentSpan]) -> bool:
    """The request's span comes last of the frontend's; the engine sends its own when it likes."""
    services = {span.service for span in trace if span.name in ("llm_request", f"POST {CHAT}")}
    return services == {FRONTEND, ENGINE}


@pytest.mark.parametrize("stream", [True, False])
def test_one_trace(http: httpx.Client, stack: Stack, spans: Collector, stream: bool) -> None:
    """The client's trace id is in the access log's line, in the frontend's spans and in vLLM's record of the request, and
    each stands below the one that asked it."""
    trace_id, headers = new_trace()
    reply = http.post(CHAT, json=chat("Good morning!", stream=stream), headers=headers).raise_for_status()
    stack.wait_for(trace_id, 10)
    (line,) = (line for line in stack.lines if trace_id in line)
    assert reply.headers["x-request-id"] in line
    found = {span.name: span for span in spans.trace(trace_id, ended)}
    request, generate, engine = found[f"POST {CHAT}"], found["generate"], found["llm_request"]
    assert request.parent_id == headers["traceparent"][36:52]
    assert generate.parent_id == request.span_id
    assert engine.parent_id == generate.span_id
    assert (request.service, generate.service, engine.service) == (FRONTEND, FRONTEND, ENGINE)
    assert found["prompt.build"].end_ns <= generate.start_ns <= engine.end_ns <= request.end_ns
    assert generate.events == ["first_token"]
    assert request.attributes["gen_ai.usage.output_tokens"] == generate.attributes["gen_ai.usage.output_tokens"] == 4
    assert engine.attributes["gen_ai.usage.completion_tokens"] == 4
    assert engine.attributes["gen_ai.usage.prompt_tokens"] == request.attributes["gen_ai.usage.input_tokens"]
    assert engine.attributes["gen_ai.latency.time_in_model_prefill"] > 0


def test_what_is_not_sampled_is_not_sent(http: httpx.Client, stack: Stack, spans: Collector) -> None:
    """A client that does not record its trace: it is in the log, and neither frontend nor engine record it."""
    trace_id = secrets.token_hex(16)
    http.post(CHAT, json=chat("Hi"), headers={"traceparent": f"00-{trace_id}-{'a' * 16}-00"}).raise_for_status()
    later, headers = new_trace()
    http.post(CHAT, json=chat("Hi"), headers=headers).raise_for_status()
    stack.wait_for(trace_id, 10)
    spans.trace(later, ended)
    assert all(span.trace_id != trace_id for span in spans.spans())


def test_no_span_has_what_was_said(http: httpx.Client, spans: Collector) -> None:
    """Prompts, names and texts of documents, metadata, keys, refused or not: in no attribute, event or name. The steps of a turn
    with documents are all there."""
    canary = f"canary{secrets.token_hex(8)}"
    trace_id, headers = new_trace()
    http.headers.update(headers)
    form = {"file": (f"{canary}.txt", f"The password of the {canary} is swordfish.".encode())}
    file = http.post("/v1/files", data={"purpose": "assistants"}, files=form).raise_for_status().json()
    store = {"name": canary, "file_ids": [file["id"]], "metadata": {"a": canary}}
    store_id = http.post("/v1/vector_stores", json=store).raise_for_status().json()["id"]
    wait_until_searchable(http, store_id)
    conversation = http.post("/v1/conversations", json={"metadata": {"a": canary}}).raise_for_status().json()["id"]
    tools = [{"type": "file_search", "vector_store_ids": [store_id]}]
    asked = {"model": "hermes-2", "input": f"What is the password of the {canary}?", "max_output_tokens": 4}
    asked |= {"conversation": conversation, "tools": tools, "instructions": canary}
    http.post("/v1/responses", json=asked).raise_for_status()
    assert http.post(CHAT, json=chat(canary, model=canary)).status_code == 404
    assert http.post(CHAT, json=chat(canary, **{canary: 1})).status_code == 400
    assert http.get(f"/v1/files/{canary}?after={canary}").status_code == 404
    assert http.get(f"/{canary}", headers={"user-agent": canary, "tracestate": "a=1"}).status_code == 404
    assert http.get("/v1/models", headers={"authorization": f"Bearer {canary}"}).status_code == 401
    http.post(CHAT, json=chat(f"Hello {canary}")).raise_for_status()
    found = spans.trace(trace_id, ended)
    assert {"documents.search", "search.embed", "embed", "search.find"} <= {span.name for span in found}
    assert {"conversation.read", "prompt.build", "turn.begin", "turn.store", "generate"} <= {s.name for s in found}
    for secret in (canary, API_KEY, "swordfish", "password"):
        assert secret.encode() not in spans.content


def wait_until_searchable(http: httpx.Client, store_id: str) -> None:
    until = time.monotonic() + 30
    while http.get(f"/v1/vector_stores/{store_id}").raise_for_status().json()["file_counts"]["in_progress"]:
        assert time.monotonic() < until
        time.sleep(0.1)
