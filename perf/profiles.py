"""What a conversation profile changes, measured: reading, JSON and tools, the same questions for every profile.

reading  a paragraph and a question of XQuAD: how often the answer holds the right one, its F1 against it, its length
json     the same, answered as {"answer": ...} of a schema: how often that holds the right one
tools    one of three tools must be called: how often it is the right one, with the right argument
"""

from __future__ import annotations

import asyncio
import json
import re
import string
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import msgspec
import openai

from perf import machine

ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string", "maxLength": 120}},
    "required": ["answer"],
    "additionalProperties": False,
}
CITIES = ("Paris", "Rome", "Tokyo", "Cairo", "Oslo", "Lima", "Delhi", "Berlin")
TOOL_QUESTIONS: list[tuple[str, str, str]] = [
    *(("get_weather", city, f"What is the weather in {city} today?") for city in CITIES),
    *(("get_time", city, f"What time is it now in {city}?") for city in CITIES),
    *(("search_news", city, f"Search the news about {city}.") for city in CITIES),
]


class Question(msgspec.Struct, frozen=True):
    text: str
    answers: Sequence[str]


class Answered(msgspec.Struct, frozen=True):
    text: str
    tokens: int
    seconds: float


def measure(url: str, key: str, data: Path, count: int, concurrency: int) -> str:
    """The report as Markdown."""
    return asyncio.run(run(url, key, load(data, count), concurrency))


def load(path: Path, count: int) -> list[Question]:
    """Questions spread evenly over XQuAD, each with its paragraph before it."""
    articles = json.loads(path.read_text())["data"]
    found = [
        Question(f"{paragraph['context']}\n\n{item['question']}", [answer["text"] for answer in item["answers"]])
        for article in articles
        for paragraph in article["paragraphs"]
        for item in paragraph["qas"]
    ]
    return found[:: max(1, len(found) // count)][:count]


async def run(url: str, key: str, questions: Sequence[Question], concurrency: int) -> str:
    rows = [
        "| profile | reading: right | F1 | tokens | seconds | json: right | F1 | tools: right |",
        "|---|---|---|---|---|---|---|---|",
    ]
    async with openai.AsyncOpenAI(base_url=url, api_key=key, timeout=300, max_retries=0) as client:
        names = [profile["id"] for profile in (await client.get("/profiles", cast_to=dict[str, Any]))["data"]]
        for name in names:
            rows += [await row(client, name, questions, asyncio.Semaphore(concurrency))]
        model = (await client.models.retrieve("hermes-2")).to_dict()["root"]
    return (
        f"# What a profile changes\n\n`python -m perf profiles`: {len(questions)} questions, {len(TOOL_QUESTIONS)} calls,"
        f" each once per profile; model {model}, {concurrency} at a time; {machine.describe()}.\n\n"
        + "\n".join(rows)
        + "\n"
    )


async def row(
    client: openai.AsyncOpenAI, profile: str, questions: Sequence[Question], places: asyncio.Semaphore
) -> str:
    read = await each(questions, places, lambda question: ask(client, profile, question.text))
    parsed = await each(questions, places, lambda question: ask_json(client, profile, question.text))
    called = await each(TOOL_QUESTIONS, places, lambda wanted: calls_rightly(client, profile, *wanted))
    cells = [
        profile,
        percent([holds(a.text, q.answers) for a, q in zip(read, questions, strict=True)]),
        f"{mean(best_f1(a.text, q.answers) for a, q in zip(read, questions, strict=True)):.2f}",
        f"{mean(a.tokens for a in read):.0f}",
        f"{mean(a.seconds for a in read):.2f}",
        percent([holds(text, q.answers) for text, q in zip(parsed, questions, strict=True)]),
        f"{mean(best_f1(text, q.answers) for text, q in zip(parsed, questions, strict=True)):.2f}",
        percent(called),
    ]
    return f"| {' | '.join(cells)} |"


async def each(items: Sequence[Any], places: asyncio.Semaphore, work: Callable[[Any], Awaitable[Any]]) -> list[Any]:
    async def one(item: Any) -> Any:
        async with places:
            return await work(item)

    return await asyncio.gather(*map(one, items))


async def ask(client: openai.AsyncOpenAI, profile: str, text: str) -> Answered:
    started = time.monotonic()
    reply = await client.chat.completions.create(
        model="hermes-2",
        messages=[{"role": "user", "content": text}],
        max_tokens=128,
        seed=1,
        extra_body={"profile": profile},
    )
    assert reply.usage is not None
    return Answered(reply.choices[0].message.content or "", reply.usage.completion_tokens, time.monotonic() - started)


async def ask_json(client: openai.AsyncOpenAI, profile: str, text: str) -> str:
    """The answer, or nothing if the reply was cut."""
    reply = await client.chat.completions.create(
        model="hermes-2",
        messages=[{"role": "user", "content": text}],
        max_tokens=128,
        seed=1,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": ANSWER, "strict": True}},
        extra_body={"profile": profile},
    )
    choice = reply.choices[0]
    return str(json.loads(choice.message.content or "{}")["answer"]) if choice.finish_reason == "stop" else ""


async def calls_rightly(client: openai.AsyncOpenAI, profile: str, name: str, city: str, text: str) -> bool:
    reply = await client.chat.completions.create(
        model="hermes-2",
        messages=[{"role": "user", "content": text}],
        max_tokens=128,
        seed=1,
        tools=[
            tool("get_weather", "Get the current weather of a city."),
            tool("get_time", "Get the local time of a city."),
            tool("search_news", "Search the latest news about a city."),
        ],
        tool_choice="required",
        parallel_tool_calls=False,
        extra_body={"profile": profile},
    )
    calls = reply.choices[0].message.tool_calls or []
    return any(
        call.type == "function" and call.function.name == name and city in call.function.arguments for call in calls
    )


def tool(name: str, description: str) -> Any:
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 30}},
        "required": ["city"],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def words(text: str) -> list[str]:
    """SQuAD's normal form: lower case, no punctuation, no articles."""
    plain = "".join(char for char in text.lower() if char not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def holds(text: str, answers: Sequence[str]) -> bool:
    said = " ".join(words(text))
    return any(" ".join(words(answer)) in said for answer in answers)


def best_f1(text: str, answers: Sequence[str]) -> float:
    return max(f1(words(text), words(answer)) for answer in answers)


def f1(said: list[str], right: list[str]) -> float:
    common = sum((Counter(said) & Counter(right)).values())
    return 2 * common / (len(said) + len(right)) if common else 0.0


def percent(hits: Sequence[bool]) -> str:
    return f"{100 * mean(hits):.0f} %"
