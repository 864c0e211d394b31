"""perf.added: what is told of pairs of requests."""

from __future__ import annotations

import pytest

from perf.added import Pair, Times, added_s, report


def pair(service_ms: float, engine_ms: float) -> Pair:
    return Pair(Times(service_ms / 1e3, 1.0), Times(engine_ms / 1e3, 0.9))


def test_what_is_added_is_the_median_of_the_pairs_differences() -> None:
    """Not the difference of the medians: both ask the same chat."""
    assert added_s([pair(10, 9), pair(30, 10), pair(23, 20)]) == pytest.approx(0.003)


@pytest.mark.parametrize(("service_ms", "verdict"), [(24.9, "met"), (25.1, "missed")])
def test_the_verdict_is_told(service_ms: float, verdict: str) -> None:
    text = report([pair(service_ms, 20)] * 3)
    assert f"the target is 5 ms at most: {verdict}" in text
    assert f"| first token | {service_ms:.1f}" in text
    assert "| 100.0 (100.0 to 100.0) |" in text
