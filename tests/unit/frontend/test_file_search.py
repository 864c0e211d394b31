"""What is searched for, of what was said."""

from __future__ import annotations

import pytest

from frontend.domain.messages import Message
from frontend.services.file_search import question

LONG = "How much does a lantern cost in the market of Vellin today?"


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ([], ""),
        ([Message("user", LONG)], LONG),
        ([Message("user", "Hello there."), Message("assistant", "Hello."), Message("user", LONG)], LONG),
        ([Message("user", LONG), Message("assistant", "Twelve."), Message("user", "And rope?")], f"{LONG}\nAnd rope?"),
        ([Message("system", "Be brief."), Message("user", "  ")], "Be brief."),
        ([Message("user", "Rope?")], "Rope?"),
    ],
)
def test_the_question(said: list[Message], asked: str) -> None:
    """The newest words of the user; a short follow-up with what it follows; anybody's where no user speaks."""
    assert question(said) == asked
