"""Ids cannot be guessed: 128 bits of the system's random source in every one of them."""

from __future__ import annotations

import ast
import re
import secrets
from functools import cache

import pytest

from frontend.domain import ids
from frontend.settings import ROOT
from tests.security.test_foreign_ids import PREFIXES

PACKAGES = ("frontend", "deploy", "retrieval", "model_repository")
NOT_FOR_IDS = {
    "frontend/services/expiry.py": "when to look for what has expired",
    "frontend/services/keys/last_used.py": "when to write down which keys were used",
}
"""Modules that use chance that can be foreseen, and for what."""


@cache
def modules() -> list[tuple[str, ast.Module]]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [(str(path.relative_to(ROOT)), ast.parse(path.read_text())) for path in paths]


@cache
def prefixes() -> set[str]:
    """Of all ids that the service makes, as they stand in its source."""
    calls = [call for _, tree in modules() for call in ast.walk(tree) if isinstance(call, ast.Call)]
    made = [call.args[0] for call in calls if ast.unparse(call.func) in ("ids.new", "Head.new")]
    return {each.value for each in made if isinstance(each, ast.Constant) and isinstance(each.value, str)}


def test_every_kind_has_its_prefix() -> None:
    """What the routes know by its id is called by ids.new, the session among them."""
    assert set(PREFIXES.values()) - prefixes() == set()
    assert {"call_", "cmp_", "fc_", "req_"} <= prefixes()


@pytest.mark.parametrize("prefix", sorted(prefixes()))
def test_an_id_has_128_random_bits(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the operating system, and nothing else: neither time, nor process, nor a counter."""
    made = {ids.new(prefix) for _ in range(1000)}
    assert len(made) == 1000
    assert all(re.fullmatch(re.escape(prefix) + "[0-9a-f]{32}", each) for each in made)
    monkeypatch.setattr(secrets, "token_hex", lambda size: "ab" * size)
    assert ids.new(prefix) == prefix + "ab" * 16


def test_every_bit_is_used() -> None:
    """Of ten thousand ids each of the 128 bits is set in about half."""
    numbers = [int(ids.new(""), 16) for _ in range(10_000)]
    for bit in range(128):
        assert 4600 < sum(number >> bit & 1 for number in numbers) < 5400


def test_no_other_chance_is_used() -> None:
    """`random` and `uuid` are imported nowhere, but for what nobody has to guess."""
    for name, tree in modules():
        for node in ast.walk(tree):
            imported = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"random", "uuid"} & set(imported) or name in NOT_FOR_IDS, name
