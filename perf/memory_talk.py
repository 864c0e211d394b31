"""A long conversation in which a few sentences matter: those that answer XQuAD's questions, said as turns among others."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import msgspec

from perf import retrieval_data
from perf.context import DEEDS, SUBJECTS, TIMES, WISHES

Order = Literal["scattered", "told"]
"""scattered: each sentence somewhere among the others; told: those of a paragraph one after the other, as they stand there."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
REPLIES = (
    "I see.",
    "Thanks for telling me.",
    "Noted. Go on.",
    "That is interesting. What else?",
    "All right.",
    "I will keep that in mind.",
)
EVERYDAY = (
    *("Hello!", "Thank you, that was helpful.", "Yes, please.", "Go on.", "Shorter, please.", "Are you sure?"),
    *("Write a haiku about spring.", "Tell me a joke.", "How do I sort a list in Python?", "What is 17 times 23?"),
    *("Translate 'good morning' into French.", "Give me a recipe for pancakes.", "Which day is it today?"),
)
"""Messages for which nothing has to be remembered."""
SEED = 7


class Asked(msgspec.Struct, frozen=True):
    text: str
    sentence: str
    """In which XQuAD has marked the answer."""


class Talk(msgspec.Struct, frozen=True):
    said: Sequence[str]
    """By the user, a turn each."""
    asked: Sequence[Asked]
    """All of their sentences are among `said`."""
    unanswered: Sequence[str]
    """Questions about paragraphs of which no sentence is."""


def talk(data: Path, order: Order, questions: int, others: int) -> Talk:
    """`others`: turns besides the sentences that are asked for: the other sentences of their paragraphs and of others, sentences
    of abstracts about aerodynamics (Cranfield), and small talk."""
    chance = random.Random(SEED)  # noqa: S311  # not for secrets
    paragraphs = list(read(data / "xquad.en.json"))
    held_out = set(chance.sample(range(len(paragraphs)), len(paragraphs) // 8))
    kept = [each for number, each in enumerate(paragraphs) if number not in held_out]
    one_each = [Asked(texts[0], sentence) for each in kept for sentence, texts in each.items() if texts]
    asked = chance.sample(one_each, questions)
    blocks = [list(each) for each in kept]
    if order == "scattered":
        blocks = [[sentence] for block in blocks for sentence in block]
    missing = others + questions - sum(map(len, blocks))
    if missing < 0:
        raise ValueError(f"XQuAD alone has {-missing} more sentences")
    foreign = chance.sample(sentences_of_cranfield(data / "cranfield"), missing // 2)
    blocks += [[text] for text in [*foreign, *small_talk(chance, missing - len(foreign))]]
    chance.shuffle(blocks)
    return Talk(
        said=[sentence for block in blocks for sentence in block],
        asked=asked,
        unanswered=[text for number in sorted(held_out) for texts in paragraphs[number].values() for text in texts[:1]],
    )


def read(file: Path) -> Iterator[Mapping[str, list[str]]]:
    """Of each paragraph its sentences, and the questions that each of them answers."""
    articles: list[Any] = msgspec.json.decode(file.read_bytes())["data"]
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        text = paragraph["context"]
        ends = [(found.start(), found.end()) for found in SENTENCE_END.finditer(text)]
        starts = [0, *(start for _, start in ends)]
        bounds = list(zip_longest(starts, (end for end, _ in ends)))
        found: dict[str, list[str]] = {text[start:end]: [] for start, end in bounds}
        for asked in paragraph["qas"]:
            at = asked["answers"][0]["answer_start"]
            start, end = max(bound for bound in bounds if bound[0] <= at)
            found[text[start:end]].append(asked["question"])
        yield found


def sentences_of_cranfield(folder: Path) -> list[str]:
    texts = retrieval_data.cranfield(folder).documents.values()
    found = (sentence for text in texts for sentence in re.split(r"(?<=\.)\s+", " ".join(text.split())))
    return [sentence for sentence in found if len(sentence) > 30]


def small_talk(chance: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
        told = f"{chance.choice(SUBJECTS)} {chance.choice(DEEDS)} {chance.choice(TIMES)}"
        yield f"I have just heard that {told}. {chance.choice(WISHES)}"
