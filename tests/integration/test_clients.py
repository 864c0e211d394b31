"""Other people's clients, as they come from PyPI and given nothing but base URL and key, against the scripted engine.

Each program of tests/clients runs once, in an environment of its own, where nothing but loopback can be reached.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from frontend.settings import ROOT
from tests.support.stack import API_KEY, CLIENTS, Stack

pytestmark = pytest.mark.clients

PROGRAMS = ROOT / "tests/clients"
CLIENT_NAMES = ["agents", "langchain", "litellm", "llm", "openai", "pydantic_ai"]
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is none: whoever calls home fails at once."""
SNIPPETS = re.findall(
    r"^## (.+?)\n.*?^```python client\n(.*?)^```$", (ROOT / "docs/clients.md").read_text(), re.M | re.S
)
Results = Callable[[str], dict[str, Any]]


def run_client(command: Sequence[str | Path], stack: Stack, home: Path) -> str:
    """What a program of the clients' environment prints; it fails if the program does."""
    done = subprocess.run(
        [CLIENTS / "bin/python", "-P", *command],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "HERMES2_API_KEY": API_KEY,
            "LLM_USER_PATH": str(home),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched at import
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "NO_PROXY": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + stack.log[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def results(replying_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What a client's program found, by the client's name."""

    @cache
    def run(name: str) -> dict[str, Any]:
        command: list[str | Path] = [PROGRAMS / f"with_{name}.py", f"{replying_stack.url}/v1", API_KEY]
        result: dict[str, Any] = json.loads(run_client(command, replying_stack, tmp_path_factory.mktemp(name)))
        return result

    return run


@pytest.fixture(scope="module")
def story() -> str:
    replies = json.loads((PROGRAMS / "replies.json").read_text())
    return str(replies[-1]["reply"])


def test_every_program_is_run() -> None:
    """None of tests/clients is forgotten here."""
    assert sorted(path.stem for path in PROGRAMS.glob("with_*.py")) == [f"with_{name}" for name in CLIENT_NAMES]


@pytest.mark.parametrize("client", CLIENT_NAMES)
def test_a_tool_makes_its_round(results: Results, client: str) -> None:
    """Schema sent, call received, tool run, its result sent back, and the answer made of it."""
    tools = results(client)["tools"]
    assert tools["calls"] == ["Paris"]
    assert tools["answer"] == "It is 22 degrees in Paris."
    assert tools.get("reasons", ["tool_calls", "stop"]) == ["tool_calls", "stop"]


@pytest.mark.parametrize("client", CLIENT_NAMES)
def test_a_stream_comes_in_pieces(results: Results, story: str, client: str) -> None:
    """More than one, and together they are the text to the character, those of several tokens among them."""
    pieces = results(client)["stream"]
    assert len(pieces) > 1
    assert "".join(pieces) == story


@pytest.mark.parametrize("client", ["langchain", "openai", "pydantic_ai"])
def test_a_schema_gives_an_object(results: Results, client: str) -> None:
    """`response_format` with the JSON schema of the client's own class."""
    assert results(client)["structured"] == {"name": "Paris", "country": "France"}


@pytest.mark.parametrize("client", ["agents", "langchain"])
def test_over_responses_too(results: Results, story: str, client: str) -> None:
    """The same round and the same stream where the service keeps what was said."""
    lasting = results(client)["lasting"]
    assert lasting["calls"] == ["Paris"]
    assert lasting["answer"] == "It is 22 degrees in Paris."
    assert len(lasting["stream"]) > 1
    assert "".join(lasting["stream"]) == story


def test_agents_keep_their_history_here(results: Results) -> None:
    """In the library's own session on conversations, and in a conversation that responses go on from."""
    lasting = results("agents")["lasting"]
    assert lasting["session"] == ["message", "function_call", "function_call_output", "message"]
    assert lasting["kept"] == ["message", "function_call", "function_call_output", "message"]
    assert lasting["kept_answer"] == "It is 22 degrees in Paris."


def test_tools_may_be_called_in_parallel(results: Results) -> None:
    """Two calls in one turn, and a result for each."""
    parallel = results("openai")["parallel"]
    assert parallel["calls"] == ["Paris", "Oslo"]
    assert parallel["answer"] == "It is warmer in Paris."


def test_a_call_may_be_streamed(results: Results) -> None:
    """The deltas of a call, put together by the clients' own code."""
    assert results("openai")["streamed_calls"] == ["Paris"]
    assert results("agents")["streamed_answer"] == "It is 22 degrees in Paris."


def test_a_tool_may_be_the_answer(results: Results) -> None:
    """pydantic-ai's default for structured output: a tool that must be called."""
    assert results("pydantic_ai")["structured_by_tool"] == {"name": "Paris", "country": "France"}


@pytest.mark.parametrize(("client", "code"), SNIPPETS, ids=[client for client, _ in SNIPPETS])
def test_a_snippet_runs(replying_stack: Stack, tmp_path: Path, client: str, code: str) -> None:
    """Those of docs/clients.md, with nothing changed but the port: each makes the round trip of a tool."""
    code = code.replace("http://localhost:11401", replying_stack.url)
    assert run_client(["-c", code], replying_stack, tmp_path).strip() == "It is 22 degrees in Paris."


def test_there_is_a_snippet_for_each() -> None:
    """The page leaves out none of the clients that are tested."""
    assert len(SNIPPETS) == len(CLIENT_NAMES)
