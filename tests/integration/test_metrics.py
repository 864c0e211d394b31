"""What the real service tells of itself: one scrape for all its parts, and one line for each request, which agree."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping

import httpx
import openai
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.stack import API_KEY, Stack

pytestmark = pytest.mark.real

CHAT = "/v1/chat/completions"
FIELD = re.compile(r"([a-z_]+)=('[^']*'|\S+)")
TRACE = "0af7651916cd43dd8448eb211c80319c"
TOKENS, ENDED = "hermes2_tokens_total", "hermes2_generations_total"
OURS = {
    "hermes2_admission_rejections",
    "hermes2_admission_slots_taken",
    "hermes2_admission_wait_seconds",
    "hermes2_admission_waiting",
    "hermes2_build_info",
    "hermes2_dependency_up",
    "hermes2_engine_requests",
    "hermes2_generations",
    "hermes2_generations_open",
    "hermes2_http_request_duration_seconds",
    "hermes2_http_requests",
    "hermes2_inter_token_latency_seconds",
    "hermes2_limit_rejections",
    "hermes2_limits_local",
    "hermes2_time_to_first_token_seconds",
    "hermes2_tokens",
    "hermes2_valkey_breaker_open",
    "hermes2_valkey_failures",
}
THEIRS = {
    "nv_cpu_utilization",
    "nv_inference_request_success",
    "vllm:kv_cache_usage_perc",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prefix_cache_hits",
    "vllm:prefix_cache_queries",
    "vllm:time_to_first_token_seconds",
}


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, headers={"authorization": f"Bearer {API_KEY}"}, timeout=60) as client:
        yield client


def scrape(http: httpx.Client) -> dict[str, Metric]:
    families = list(text_string_to_metric_families(http.get("/metrics").raise_for_status().text))
    by_name = {family.name: family for family in families}
    assert len(by_name) == len(families), "a family is there twice"
    return by_name


def values(http: httpx.Client) -> dict[str, float]:
    """Counters and histograms of generations, by what stands in their labels."""
    found = {}
    for family in scrape(http).values():
        for sample in family.samples:
            if sample.name in (TOKENS, ENDED) or (
                sample.name.endswith("_count") and sample.labels.get("route") == CHAT and len(sample.labels) == 1
            ):
                found[f"{sample.name} {next(iter(sample.labels.values()))}"] = sample.value
    return found


def idle(http: httpx.Client) -> None:
    """Nobody generates any more: neither a test before this one, nor a summary that it has left to be made."""
    deadline = time.monotonic() + 20
    quiet = 0
    while quiet < 3:
        families = scrape(http)
        names = "hermes2_admission_slots_taken", "hermes2_admission_waiting", "hermes2_engine_requests"
        busy = any(sample.value for name in names for sample in families[name].samples)
        quiet = 0 if busy else quiet + 1
        assert time.monotonic() < deadline, "the engine has not become idle"
        time.sleep(0.05)


def line(stack: Stack, request_id: str) -> Mapping[str, str]:
    """The one line of the request."""
    stack.wait_for(f"request_id={request_id}", 10)
    (text,) = [each for each in stack.lines if "] request " in each and f"request_id={request_id}" in each]
    return dict(FIELD.findall(text))


def test_one_scrape_shows_all(http: httpx.Client) -> None:
    """The frontend, vLLM and Triton; no family twice, everything answers, and it says what runs."""
    http.post(CHAT, json={"model": "hermes-2", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})
    families = scrape(http)
    assert set(families) >= OURS | THEIRS
    up = {sample.labels["dependency"]: sample.value for sample in families["hermes2_dependency_up"].samples}
    assert up == dict.fromkeys(["engine", "embedder", "sql", "valkey", "triton"], 1)
    (info,) = families["hermes2_build_info"].samples
    assert (info.labels["engine"], info.labels["model"]) == ("vllm", "smollm2-135m")
    models = {sample.labels["model"] for sample in families["nv_inference_request_success"].samples}
    assert models == {"hermes2", "embedder"}


def test_a_stream_is_one_line_and_counts_once(stack: Stack, http: httpx.Client, client: openai.OpenAI) -> None:
    """Its line has every field, its tokens are those of the usage, the repeated prompt's from the cache, and the counters
    have moved by exactly these."""
    content = f"At {time.time()} o'clock, " + "the bells of Vellin ring again, and " * 30 + "then?"
    asked = {"model": "hermes-2", "messages": [{"role": "user", "content": content}]}
    http.post(CHAT, json=asked | {"max_tokens": 1}).raise_for_status()
    idle(http)
    before, request_id = values(http), f"line-{time.time_ns()}"
    headers = {"x-request-id": request_id, "traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}
    stream = client.chat.completions.create(
        model="hermes-2",
        messages=[{"role": "user", "content": content}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=headers,
        extra_body={"ignore_eos": True},
    )
    (usage,) = [chunk.usage for chunk in stream if chunk.usage is not None]
    told = line(stack, request_id)
    assert usage.prompt_tokens_details is not None
    cached = usage.prompt_tokens_details.cached_tokens
    assert cached
    assert cached > 100
    text = {name: told[name] for name in ("method", "route", "status", "tenant", "key_id", "model", "trace_id")}
    assert text == {
        "method": "POST",
        "route": CHAT,
        "status": "200",
        "tenant": "default",
        "key_id": "bootstrap",
        "model": "smollm2-135m",
        "trace_id": TRACE,
    }
    assert told["client"] == "127.0.0.1"
    tokens = [int(told[name]) for name in ("prompt_tokens", "cached_tokens", "completion_tokens")]
    assert tokens == [usage.prompt_tokens, cached, usage.completion_tokens] == [usage.prompt_tokens, cached, 12]
    assert 0 <= float(told["queue_ms"]) < float(told["ttft_ms"]) < float(told["duration_ms"])
    gained = {name: now - before.get(name, 0) for name, now in values(http).items()}
    assert {name: by for name, by in gained.items() if by} == {
        f"{TOKENS} prompt": usage.prompt_tokens,
        f"{TOKENS} cached": cached,
        f"{TOKENS} completion": 12,
        f"{ENDED} completed": 1,
        f"hermes2_http_request_duration_seconds_count {CHAT}": 1,
        f"hermes2_time_to_first_token_seconds_count {CHAT}": 1,
        f"hermes2_inter_token_latency_seconds_count {CHAT}": 1,
    }


def test_what_is_refused_has_its_line(stack: Stack, http: httpx.Client) -> None:
    """Without a key, to nowhere, and wrong as it stands: with its status and error, and nothing that does not apply."""
    always = {"method", "route", "status", "error", "client", "request_id", "duration_ms"}
    for number, (method, path, headers, status, fields) in enumerate(
        [
            ("GET", "/v1/models", {"authorization": "Bearer nobody"}, 401, set[str]()),
            ("GET", "/v1/nothing", {}, 404, set()),
            ("POST", CHAT, {}, 400, {"tenant", "key_id"}),
        ]
    ):
        request_id = f"refused-{number}-{time.time_ns()}"
        reply = http.request(method, path, headers=headers | {"x-request-id": request_id}, content=b"{}")
        assert reply.status_code == status
        told = line(stack, request_id)
        assert set(told) - {"trace_id"} == always | fields, told
        assert told["status"] == str(status)
        assert told["error"] == (reply.json()["error"]["code"] or told["error"])
