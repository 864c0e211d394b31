"""frontend/domain/embedding: the ids of a text are the model's own, uncut, and never control tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from frontend.domain.embedding import card
from frontend.domain.embedding.encoder import EmbeddingEncoder

CLS, SEP = 101, 102


@pytest.fixture(scope="module")
def encoder(minilm: Path) -> EmbeddingEncoder:
    return EmbeddingEncoder.from_folder(minilm)


@pytest.fixture(scope="module")
def reference(minilm: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def test_the_card_describes_the_model(minilm: Path) -> None:
    """Dimensions and window are read from its own files."""
    found = card.read(minilm, "a name")
    assert (found.id, found.dimensions, found.max_tokens) == ("a name", 384, 256)


@pytest.mark.parametrize("text", ["A cat.", "Größe naïve 東京 привет", "word " * 600, "", " \n", "x" * 500])
def test_a_text_is_read_as_the_model_reads_it(encoder: EmbeddingEncoder, reference: Tokenizer, text: str) -> None:
    """The ids of its own tokenizer, with neither the cut nor the padding at 128 that its file asks for."""
    assert encoder.frame(encoder.encode(text)) == reference.encode(text).ids


@given(st.lists(st.sampled_from(["[CLS]", "[SEP]", "[PAD]", "[MASK]", "a", " ", "[", "]"]), max_size=12))
def test_no_text_becomes_a_control_token(encoder: EmbeddingEncoder, parts: list[str]) -> None:
    """[SEP] in a text is plain text: control tokens stand at the two ends only."""
    ids = encoder.encode("".join(parts))
    assert not {0, CLS, SEP, 103} & set(ids)
    assert encoder.frame(ids) == [CLS, *ids, SEP]


@pytest.mark.parametrize(
    ("ids", "foreign"), [([100, 7592], None), ([7592, 30522], 30522), ([-1], -1), ([5, CLS], CLS), ([SEP, 30522], SEP)]
)
def test_foreign_ids_are_found(encoder: EmbeddingEncoder, ids: list[int], foreign: int | None) -> None:
    """Outside the vocabulary, or a control token; an unknown word's id is a token like others."""
    assert encoder.first_foreign(ids) == foreign
