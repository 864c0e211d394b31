"""Direct clients of Triton: plain tritonclient code and perf_analyzer, with the names of NVIDIA's vLLM backend."""

from __future__ import annotations

import json
import queue
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from frontend import settings as settings_module
from perf import perf_analyzer
from tests.support.stack import Stack

pytestmark = pytest.mark.real

PROMPT = b"The capital of France is"


@pytest.fixture
def client(stack: Stack) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(stack.grpc) as connected:
        yield connected


def tensor(name: str, value: object, datatype: str) -> Any:
    array = np.asarray([value], dtype=np.object_ if datatype == "BYTES" else None)
    made = triton.InferInput(name, [1], datatype)
    made.set_data_from_numpy(array)
    return made


def infer(client: triton.InferenceServerClient, inputs: list[Any]) -> list[Any]:
    """Every response to one request, as tritonclient's documentation has it. Raises what the server answers."""
    answers: queue.Queue[tuple[Any, Exception | None]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer("hermes2", inputs, enable_empty_final_response=True)
    results: list[Any] = []
    try:
        while True:
            result, error = answers.get(timeout=60)
            if error is not None:
                raise error
            if result.get_response().parameters["triton_final_response"].bool_param:
                return [*results, result] if result.get_response().outputs else results
            results.append(result)
    finally:
        client.stop_stream()


def texts(results: list[Any], name: str = "text_output") -> list[str]:
    return [result.as_numpy(name)[0].decode() for result in results]


def test_a_whole_reply_begins_with_the_prompt(client: triton.InferenceServerClient) -> None:
    """stream absent, exclude_input_in_output absent: one response, prompt and answer, as NVIDIA's backend gives it."""
    results = infer(
        client,
        [
            tensor("text_input", PROMPT, "BYTES"),
            tensor("sampling_parameters", b'{"temperature": "0", "max_tokens": "4"}', "BYTES"),
        ],
    )
    assert len(results) == 1
    assert texts(results)[0].startswith("The capital of France is Paris")


def test_a_stream_with_every_output(client: triton.InferenceServerClient) -> None:
    """Deltas that add up, FINAL on the last data response, and all outputs that were asked for."""
    returns = ["finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens"]
    results = infer(
        client,
        [
            tensor("text_input", PROMPT, "BYTES"),
            tensor("stream", True, "BOOL"),
            tensor("exclude_input_in_output", True, "BOOL"),
            tensor(
                "sampling_parameters",
                b'{"temperature": 0, "max_tokens": 6, "logprobs": 1, "ignore_eos": true}',
                "BYTES",
            ),
            *[tensor(f"return_{name}", True, "BOOL") for name in returns],
        ],
    )
    assert "Paris" in "".join(texts(results))
    assert texts(results, "finish_reason") == ["None"] * (len(results) - 1) + ["length"]
    assert sum(int(result.as_numpy("num_output_tokens")[0]) for result in results) == 6
    assert {int(result.as_numpy("num_input_tokens")[0]) for result in results} == {5}
    assert results[-1].as_numpy("cumulative_logprob")[0] < 0
    positions = [position for text in texts(results, "logprobs") for position in json.loads(text)]
    assert len(positions) == 6


@pytest.mark.parametrize(
    ("sampling", "named"),
    [
        (b'{"temperature": "warm"}', "temperature"),
        (b'{"max_tokens": -1}', "max_tokens"),
        (b'{"top_p": 7}', "top_p"),
        (b'{"guided_regex": "(a+)+"}', "guided_regex"),
        (b'{"n": 100000}', "n"),
        (b"not json", "sampling_parameters"),
    ],
)
def test_a_bad_parameter_is_named(client: triton.InferenceServerClient, sampling: bytes, named: str) -> None:
    """Bad sampling parameters answer an error that begins with the field, ours and vLLM's own checks alike."""
    with pytest.raises(InferenceServerException) as caught:
        infer(client, [tensor("text_input", PROMPT, "BYTES"), tensor("sampling_parameters", sampling, "BYTES")])
    assert caught.value.message().startswith(f"{named}: ")


def test_a_prompt_beyond_the_window_is_invalid(client: triton.InferenceServerClient) -> None:
    """vLLM's refusal arrives as an error of the request, and the engine goes on."""
    with pytest.raises(InferenceServerException, match="maximum"):
        infer(client, [tensor("text_input", b"word " * 9000, "BYTES")])
    assert texts(infer(client, [tensor("text_input", PROMPT, "BYTES")]))


def test_the_prefix_cache_serves_equal_salts_only(client: triton.InferenceServerClient) -> None:
    """cache_salt separates: a second request of the same salt finds the prefix, one of another salt does not."""

    def cached(salt: bytes) -> int:
        results = infer(
            client,
            [
                tensor("text_input", b"A prefix that is long enough to fill blocks of the cache. " * 60, "BYTES"),
                tensor("sampling_parameters", b'{"max_tokens": 1}', "BYTES"),
                tensor("cache_salt", salt, "BYTES"),
                tensor("return_num_cached_tokens", True, "BOOL"),
            ],
        )
        return int(results[-1].as_numpy("num_cached_tokens")[0])

    assert cached(b"first") == 0
    assert cached(b"first") > 100
    assert cached(b"second") == 0


def test_perf_analyzer_drives_hermes2(stack: Stack, tmp_path: Path) -> None:
    """The stock tool, streaming, open-loop: it measures and exports, and no request fails."""
    data = {
        "text_input": [PROMPT.decode()],
        "stream": [True],
        "sampling_parameters": ['{"max_tokens": "8", "temperature": "0"}'],
        "exclude_input_in_output": [True],
    }
    inputs, export = tmp_path / "inputs.json", tmp_path / "profile.json"
    inputs.write_text(json.dumps({"data": [data]}))
    argv, environment = perf_analyzer.command(settings_module.load())
    argv += ["-m", "hermes2", "-i", "grpc", "-u", stack.grpc, "--async", "--streaming", "--input-data", str(inputs)]
    argv += ["--request-rate-range", "4", "--request-distribution", "poisson", "--measurement-interval", "3000"]
    argv += ["--stability-percentage", "999", "--max-trials", "3", "--profile-export-file", str(export)]
    for _ in range(2):  # it has been seen to end well and export nothing
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        if export.stat().st_size:
            break
    requests = json.loads(export.read_text())["experiments"][0]["requests"]
    assert len(requests) >= 8
    assert all(len(request["response_timestamps"]) >= 1 for request in requests)
