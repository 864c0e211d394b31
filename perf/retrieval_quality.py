"""Whether search finds what answers: collections with known answers, through the index as the service has it.

Cranfield   abstracts of aerodynamics, queries of many words, several relevant ones each
XQuAD-en    paragraphs of Wikipedia, questions that one of them answers
joined      the same paragraphs, joined to whole articles and cut into chunks of 800 tokens, 400 of them shared: is the
            paragraph with the answer in the first chunk, in the first five?
Each by vectors alone, by words alone (BM25), and by both, which is the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from frontend.services.embeddings import WINDOW_TOKENS
from perf import machine, retrieval_data
from perf.retrieval_vectors import Embeddings
from retrieval.chunking import Piece, cut
from retrieval.hybrid import HybridIndex
from retrieval.merge import Span, merge
from retrieval.types import Chunk, Delta, Hit, Query

MAX_TOKENS, OVERLAP = 800, 400
TOP = 10
WAYS: Mapping[str, tuple[float, float]] = {"dense": (1, 0), "BM25": (0, 1), "hybrid": (1, 1)}
"""Weights of vectors and of words."""


class Row(msgspec.Struct, frozen=True):
    name: str
    measure: str
    target: float | None
    found: Mapping[str, float]
    """By way."""


class Corpus:
    """Documents in an index, cut and embedded as the service does it."""

    def __init__(self, documents: Mapping[str, str], embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self.pieces: list[tuple[str, Piece]] = []
        """By sequence number, from 1 on."""
        for name, text in documents.items():
            tokens = embeddings.encoder.tokens(text)
            cut_up = cut(text, tokens, max_tokens=MAX_TOKENS, overlap=OVERLAP, window_tokens=WINDOW_TOKENS)
            self.pieces += [(name, piece) for piece in cut_up]
        windows = [window for _, piece in self.pieces for window in piece.windows]
        vectors = embeddings.vectors(windows).astype(np.float16)
        self.index = HybridIndex()
        added, at = [], 0
        for seq, (_, piece) in enumerate(self.pieces, 1):
            added.append(Chunk(seq, piece.text, vectors[at : at + len(piece.windows)]))
            at += len(piece.windows)
        self.index.apply(Delta(after=0, upto=len(added), added=added))
        self.windows = at

    def search(self, texts: Sequence[str], k: int) -> dict[str, list[list[Hit]]]:
        """By way, for each text the best k."""
        vectors = self._embeddings.vectors([self._embeddings.encoder.encode(text)[:WINDOW_TOKENS] for text in texts])
        return {
            way: [
                self.index.search(Query(text=text, vector=vector, vector_weight=dense, text_weight=words), k)
                for text, vector in zip(texts, vectors, strict=True)
            ]
            for way, (dense, words) in WAYS.items()
        }

    def documents(self, hits: Sequence[Hit]) -> list[str]:
        """A document is where its best chunk is."""
        return list(dict.fromkeys(self.pieces[hit.seq - 1][0] for hit in hits))


def measure(data: Path, embeddings: Embeddings, progress: Callable[[str], None]) -> list[Row]:
    rows = []
    for collection, target in (
        (retrieval_data.cranfield(data / "cranfield"), 0.43),
        (retrieval_data.xquad(data / "xquad.en.json"), 0.96),
    ):
        progress(f"{collection.name}: {len(collection.documents)} documents, {len(collection.questions)} questions")
        rows.append(ranked(collection, target, embeddings))
    articles = retrieval_data.joined_xquad(data / "xquad.en.json")
    progress(f"joined: {len(articles.texts)} articles")
    return [*rows, *contained(articles, embeddings)]


def ranked(collection: retrieval_data.Collection, target: float, embeddings: Embeddings) -> Row:
    corpus = Corpus(collection.documents, embeddings)
    found = {}
    for way, rankings in corpus.search([question.text for question in collection.questions], 2 * TOP).items():
        scores = [
            ndcg(corpus.documents(hits), question.grades)
            for hits, question in zip(rankings, collection.questions, strict=True)
        ]
        found[way] = float(np.mean(scores))
    return Row(collection.name, f"nDCG@{TOP}", target, found)


def ndcg(ranking: Sequence[str], grades: retrieval_data.Grades) -> float:
    def gain(values: Sequence[int]) -> float:
        return sum(value / math.log2(rank + 1) for rank, value in enumerate(values[:TOP], 1))

    return gain([grades.get(name, 0) for name in ranking]) / gain(sorted(grades.values(), reverse=True))


def contained(articles: retrieval_data.Articles, embeddings: Embeddings) -> list[Row]:
    corpus = Corpus(articles.texts, embeddings)
    found: dict[str, dict[str, float]] = {"first": {}, "one": {}, "together": {}}
    for way, rankings in corpus.search([question.text for question in articles.questions], 5).items():
        answers = [
            [*(holds(span(corpus, hit), question) for hit in hits), together(corpus, hits, question)]
            for hits, question in zip(rankings, articles.questions, strict=True)
        ]
        found["first"][way] = float(np.mean([answer[0] for answer in answers]))
        found["one"][way] = float(np.mean([any(answer[:-1]) for answer in answers]))
        found["together"][way] = float(np.mean([answer[-1] for answer in answers]))
    return [
        Row("XQuAD-en, joined", "in the first chunk", 0.91, found["first"]),
        Row("", "in the first five, overlapping ones merged", 0.99, found["together"]),
        Row("", f"in one of the first five (there is one for {cut_whole(corpus, articles):.3f})", None, found["one"]),
    ]


def span(corpus: Corpus, hit: Hit) -> Span:
    name, piece = corpus.pieces[hit.seq - 1]
    return Span(name, piece.start, piece.end, piece.text, hit.score)


def together(corpus: Corpus, hits: Sequence[Hit], question: retrieval_data.Asked) -> bool:
    """As passages are put into a prompt: a paragraph that two chunks have the halves of is there."""
    return any(holds(merged.span, question) for merged in merge([span(corpus, hit) for hit in hits]))


def holds(passage: Span, question: retrieval_data.Asked) -> bool:
    """The whole paragraph."""
    return passage.file_id == question.article and passage.start <= question.start and question.end <= passage.end


def cut_whole(corpus: Corpus, articles: retrieval_data.Articles) -> float:
    """The share of questions whose paragraph lies in one chunk: what search could find at most."""
    spans = [span(corpus, Hit(seq, 0.0)) for seq in range(1, len(corpus.pieces) + 1)]
    return float(np.mean([any(holds(each, question) for each in spans) for question in articles.questions]))


def report(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = [
        f"| | measure | {' | '.join(WAYS)} | to reach |",
        "|---|---|" + "---|" * len(WAYS) + "---|",
        *(line(row) for row in rows),
    ]
    return (
        "# What search finds\n\n`python -m perf retrieval --quality`: all-MiniLM-L6-v2, chunks of"
        f" {MAX_TOKENS} tokens ({OVERLAP} shared) in windows of at most {WINDOW_TOKENS}; {machine.describe()}.\n"
        "Hybrid is the default. Joined: the paragraphs of an article as one text, of which the chunk has the"
        " answer's whole.\n\n" + "\n".join(lines) + "\n"
    )


def line(row: Row) -> str:
    target = "-" if row.target is None else f"{row.target:.2f}"
    return f"| {row.name} | {row.measure} | {' | '.join(f'{row.found[way]:.3f}' for way in WAYS)} | {target} |"
