"""Collections with known answers, from the folder of HERMES2_EVAL_DATA: Cranfield, and XQuAD in English."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

Grades = Mapping[str, int]
"""Of documents; what is not there has none."""


class Question(msgspec.Struct, frozen=True):
    text: str
    grades: Grades


class Collection(msgspec.Struct, frozen=True):
    name: str
    documents: Mapping[str, str]
    questions: Sequence[Question]


class Asked(msgspec.Struct, frozen=True):
    """A question that one paragraph answers."""

    text: str
    article: str
    start: int
    """Of the paragraph in the article, characters."""
    end: int


class Articles(msgspec.Struct, frozen=True):
    texts: Mapping[str, str]
    questions: Sequence[Asked]


def cranfield(folder: Path) -> Collection:
    """1,400 abstracts, 225 queries. Judgements number the queries by position, not by their <num>."""
    documents = {}
    for entry in (folder / "cran.all.1400.xml").read_text().split("<doc>")[1:]:
        documents[element(entry, "docno")] = element(entry, "text")
    grades: list[dict[str, int]] = []
    queries = [element(entry, "title") for entry in (folder / "cran.qry.xml").read_text().split("<top>")[1:]]
    grades = [{} for _ in queries]
    for line in (folder / "cranqrel.trec.txt").read_text().splitlines():
        if line.strip():
            number, _, document, grade = line.split()
            grades[int(number) - 1][document] = max(0, int(grade))
    questions = [Question(text, judged) for text, judged in zip(queries, grades, strict=True)]
    return Collection("Cranfield", documents, [question for question in questions if any(question.grades.values())])


def element(entry: str, name: str) -> str:
    """ "" if it is not there: one document has no text."""
    found = re.search(rf"<{name}>(.*?)</{name}>", entry, re.DOTALL)
    return found[1].strip() if found else ""


def xquad(file: Path) -> Collection:
    """240 paragraphs, 1,190 questions, each answered by one."""
    documents: dict[str, str] = {}
    questions = []
    for article in _articles(file):
        for paragraph in article["paragraphs"]:
            name = str(len(documents))
            documents[name] = paragraph["context"]
            questions += [Question(asked["question"], {name: 1}) for asked in paragraph["qas"]]
    return Collection("XQuAD-en", documents, questions)


def joined_xquad(file: Path) -> Articles:
    """The same, each article's paragraphs as one text."""
    texts, questions = {}, []
    for article in _articles(file):
        text = ""
        for paragraph in article["paragraphs"]:
            start = len(text)
            text += paragraph["context"]
            questions += [Asked(asked["question"], article["title"], start, len(text)) for asked in paragraph["qas"]]
            text += "\n\n"
        texts[article["title"]] = text
    return Articles(texts, questions)


def _articles(file: Path) -> list[Any]:
    articles: list[Any] = msgspec.json.decode(file.read_bytes())["data"]
    return articles
