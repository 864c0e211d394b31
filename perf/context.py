"""What a long conversation costs: turn after turn in one conversation of the service, and the same as others do it.

conversation   /v1/responses with `conversation`: the service trims in blocks, and summarises between the turns
client         /v1/chat/completions with the whole history, from which the client drops the oldest message of each turn that
               does not fit: what clients and frameworks do where a server keeps nothing

Each turn is streamed: time to the first token, prompt tokens, and how many of those came from the prefix cache. A turn
counts as trimmed if its prompt is shorter than the one before.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import httpx
import msgspec

from perf import machine

ANSWER_TOKENS = 32
SENTENCE_TOKENS = 8
SYSTEM = "You are a helpful assistant. Answer in one short sentence."
SUBJECTS = (
    "my sister",
    "the old library",
    "our project",
    "that small town",
    "the new engine",
    "her garden",
    "the ship",
)
DEEDS = ("was built", "changed", "was sold", "broke down", "got a prize", "was moved", "caught fire", "was painted")
TIMES = ("last winter", "in 1974", "on a Monday", "two years ago", "this spring", "before the war", "at noon")
WISHES = ("Tell me why.", "What should I do?", "Is that usual?", "Who would know?", "What came next?", "How so?")


class Turn(msgspec.Struct, frozen=True):
    prompt_tokens: int
    cached_tokens: int
    ttft_s: float
    trimmed: bool


class Figures(msgspec.Struct, frozen=True):
    """One way of talking, all of its turns."""

    name: str
    turns: Sequence[Turn]
    errors: int
    """Turns that failed; they are not among the others."""

    @property
    def most_prompt_tokens(self) -> int:
        return max((turn.prompt_tokens for turn in self.turns), default=0)

    @property
    def late_cached_share(self) -> float:
        """Of the prompts' tokens in the second half: of 200 turns, the last 100."""
        late = self.turns[len(self.turns) // 2 :]
        return sum(turn.cached_tokens for turn in late) / max(1, sum(turn.prompt_tokens for turn in late))

    @property
    def early_ttft_s(self) -> float:
        """Of 200 turns, the median of turns 31 to 50: of those that have not trimmed, if there are any."""
        return self._ttft_s(0.15, 0.25)

    @property
    def late_ttft_s(self) -> float:
        """Of 200 turns, that of turns 181 to 200."""
        return self._ttft_s(0.9, 1)

    @property
    def trimmed(self) -> Sequence[Turn]:
        return [turn for turn in self.turns if turn.trimmed]

    def _ttft_s(self, first: float, last: float) -> float:
        some = self.turns[int(first * len(self.turns)) : int(last * len(self.turns))]
        return median([turn.ttft_s for turn in some if not turn.trimmed] or [turn.ttft_s for turn in some])


class Comparison(msgspec.Struct, frozen=True):
    conversation: Figures
    client: Figures | None
    model: str

    @property
    def slowdown(self) -> float:
        """Late over early time to first token: 1 if a long conversation answers as fast as a young one."""
        return self.conversation.late_ttft_s / self.conversation.early_ttft_s


class Reply(msgspec.Struct, frozen=True):
    text: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_s: float


def compare(
    url: str,
    key: str,
    turns: int,
    window: int,
    baseline: bool,
    progress: Callable[[str], None],
    answer_tokens: int = ANSWER_TOKENS,
) -> Comparison:
    """`url`: with its /v1. `window`: tokens of prompt and answer, the service's own at most."""
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, timeout=600) as client:
        model = client.get("models/hermes-2").raise_for_status().json()
        if model["max_model_len"] < window:
            raise ValueError(f"the service's window has {model['max_model_len']} tokens, not {window}")
        texts = list(questions(turns, window))
        return Comparison(
            conversation=run("conversation", Conversation(client, window, answer_tokens), texts, progress),
            client=run("client", Client(client, window, answer_tokens), texts, progress) if baseline else None,
            model=model["root"],
        )


def questions(count: int, window: int) -> Iterator[str]:
    """Such that a fifth of the turns fills the window, the same for each run."""
    chance = random.Random(7)  # noqa: S311  # not for secrets
    sentences = max(2, (5 * window // count - ANSWER_TOKENS - 20) // SENTENCE_TOKENS)
    for number in range(1, count + 1):
        told = "; ".join(
            f"{chance.choice(SUBJECTS)} {chance.choice(DEEDS)} {chance.choice(TIMES)}" for _ in range(sentences)
        )
        yield f"Number {number}: {told}. {chance.choice(WISHES)}"


def run(name: str, talk: Conversation | Client, texts: Sequence[str], progress: Callable[[str], None]) -> Figures:
    turns: list[Turn] = []
    errors = 0
    for number, text in enumerate(texts, 1):
        try:
            reply = talk.say(text)
        except (httpx.HTTPError, Failed) as exc:
            errors += 1
            progress(f"{name} {number}: {exc!r}")
            continue
        trimmed = bool(turns) and reply.prompt_tokens < turns[-1].prompt_tokens
        turns.append(Turn(reply.prompt_tokens, reply.cached_tokens, reply.ttft_s, trimmed))
        if number % 10 == 0:
            progress(
                f"{name} {number}: {reply.prompt_tokens} tokens, {reply.cached_tokens} cached, {reply.ttft_s:.3f} s"
            )
    return Figures(name, turns, errors)


class Failed(Exception):
    """A stream that has ended in an error, or without an end."""


class Conversation:
    """The service keeps the history; its prompts have a budget, so that any window can be tried on any service."""

    def __init__(self, client: httpx.Client, window: int, answer_tokens: int) -> None:
        self._client = client
        self._answer_tokens = answer_tokens
        body = {"context": {"budget_tokens": window - answer_tokens}, "metadata": {"made_by": "perf context"}}
        self._id = client.post("conversations", json=body).raise_for_status().json()["id"]

    def say(self, text: str) -> Reply:
        body = {
            "model": "hermes-2",
            "conversation": self._id,
            "instructions": f"{SYSTEM} This is {self._id}.",  # a beginning that no run before has left in the cache
            "input": text,
            "max_output_tokens": self._answer_tokens,
            "temperature": 0,
            "stream": True,
        }
        started, first, said = time.perf_counter(), None, ""
        for event in events(self._client, "responses", body):
            kind = event.get("type", "error")
            if kind == "response.output_text.delta":
                first = first or time.perf_counter()
                said += event["delta"]
            elif kind in ("response.completed", "response.incomplete"):
                usage = event["response"]["usage"]
                cached = usage["input_tokens_details"]["cached_tokens"]
                ttft_s = (first or time.perf_counter()) - started
                return Reply(said, usage["input_tokens"], cached, usage["output_tokens"], ttft_s)
            elif kind in ("response.failed", "error"):
                raise Failed(str(event))
        raise Failed("the stream had no end")


class Client:
    """Keeps the history itself, and knows how long it is from the usage of the turn before."""

    def __init__(self, client: httpx.Client, window: int, answer_tokens: int) -> None:
        self._client = client
        self._window = window
        self._answer_tokens = answer_tokens
        self._system = {"role": "system", "content": f"{SYSTEM} This is {time.time_ns()}."}
        self._messages: list[dict[str, str]] = []
        self._tokens = 0
        """Of all that is in `_messages`, nearly: what was dropped since is estimated."""

    def say(self, text: str) -> Reply:
        self._messages.append({"role": "user", "content": text})
        self._tokens += estimate(text)
        while self._tokens > self._window - self._answer_tokens and len(self._messages) > 1:
            self._tokens -= estimate(self._messages.pop(0)["content"])
        reply = self._ask()
        self._messages.append({"role": "assistant", "content": reply.text})
        self._tokens = reply.prompt_tokens + reply.completion_tokens
        return reply

    def _ask(self) -> Reply:
        body = {
            "model": "hermes-2",
            "messages": [self._system, *self._messages],
            "max_tokens": self._answer_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started, first, said = time.perf_counter(), None, ""
        for event in events(self._client, "chat/completions", body):
            if "error" in event:
                raise Failed(str(event))
            for choice in event["choices"]:
                if choice["delta"].get("content"):
                    first = first or time.perf_counter()
                    said += choice["delta"]["content"]
            if (usage := event.get("usage")) is not None:
                cached = usage["prompt_tokens_details"]["cached_tokens"]
                ttft_s = (first or time.perf_counter()) - started
                return Reply(said, usage["prompt_tokens"], cached, usage["completion_tokens"], ttft_s)
        raise Failed("the stream had no end")


def estimate(text: str) -> int:
    """Tokens of a message in plain English, with what ChatML puts around it."""
    return len(text) // 4 + 6


def events(client: httpx.Client, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with client.stream("POST", path, json=body) as response:
        if response.status_code != 200:
            response.read()
            raise Failed(f"{response.status_code}: {response.text}")
        for line in response.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield msgspec.json.decode(line.removeprefix("data: "))


def report(found: Comparison, turns: int, window: int) -> str:
    """As Markdown."""
    rows = [
        "| | errors | longest prompt | cached, second half | TTFT early | late | late / early | turns trimmed | their TTFT |",
        "|---|---|---|---|---|---|---|---|---|",
        *(row(figures) for figures in (found.conversation, found.client) if figures is not None),
    ]
    return (
        f"# What a long conversation costs\n\n`python -m perf context --turns {turns} --window {window}`: model"
        f" {found.model}, {ANSWER_TOKENS} tokens an answer, one turn at a time; {machine.describe()}.\n"
        f"TTFT: median, without trimmed turns; early: turns {turns * 3 // 20 + 1} to {turns // 4}, late: the last"
        f" {turns // 10}.\n\n" + "\n".join(rows) + "\n"
    )


def row(figures: Figures) -> str:
    early, late, trimmed = figures.early_ttft_s, figures.late_ttft_s, figures.trimmed
    cells = [
        figures.name,
        str(figures.errors),
        str(figures.most_prompt_tokens),
        f"{figures.late_cached_share:.2f}",
        f"{early * 1e3:.0f} ms",
        f"{late * 1e3:.0f} ms",
        f"{late / early:.2f}",
        str(len(trimmed)),
        f"{median(turn.ttft_s for turn in trimmed) * 1e3:.0f} ms" if trimmed else "-",
    ]
    return f"| {' | '.join(cells)} |"
