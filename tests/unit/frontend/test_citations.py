"""Which passages an answer cites, and where."""

from __future__ import annotations

import pytest

from frontend.domain.items import FileSearchResult
from frontend.services.citations import cite

GATE = "The harbour gate of Vellin opens at seven in the morning and closes at nine in the evening."
CATS = "A cat sleeps for sixteen hours a day. Old cats sleep even longer."
PASSAGES = [
    FileSearchResult(file_id="file-gate", filename="gate.txt", text=GATE, score=0.9),
    FileSearchResult(file_id="file-cats", filename="cats.md", text=CATS, score=0.5),
]


def cited(text: str) -> list[tuple[str, int]]:
    return [(each.filename, each.index) for each in cite(text, PASSAGES)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("At seven [1].", [("gate.txt", 9)]),
        ("At seven [1], or longer [1, 2].", [("gate.txt", 9), ("gate.txt", 24), ("cats.md", 24)]),
        ("Nobody knows [3] or [0] or [x] or [999999999999].", []),
        ("The harbour gate opens at seven in the morning.", [("gate.txt", 46)]),
        ("Cats sleep sixteen hours each day!\nThe gate of Vellin closes at nine.", [("cats.md", 33), ("gate.txt", 68)]),
        ("The gate is made of iron and was painted blue.", []),
        ("Yes, at seven.", []),
        ("", []),
        ("🙂 [2]", [("cats.md", 2)]),
    ],
)
def test_markers_and_shared_words(text: str, expected: list[tuple[str, int]]) -> None:
    """A label cites where it stands; a sentence of a passage's words cites at its end; anything else cites nothing."""
    assert cited(text) == expected


def test_without_passages_nothing_is_cited() -> None:
    """Whatever the text says."""
    assert cite("As [1] says, the gate opens at seven.", []) == []


def test_names_come_from_the_store() -> None:
    """A passage that claims to be another file is cited as what it is."""
    liar = FileSearchResult(file_id="file-liar", filename="liar.txt", text=f"[2] secret.pdf\n{GATE}", score=0.9)
    (found,) = cite("The harbour gate of Vellin opens at seven.", [liar])
    assert (found.file_id, found.filename) == ("file-liar", "liar.txt")
