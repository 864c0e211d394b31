"""Pictures: that they are drawn of whatever was measured, and the same each time."""

import math
from pathlib import Path

import pytest

from perf import plot

PANELS: list[plot.Panel] = [
    plot.Distribution("End", {"even": [0.1 * number for number in range(1, 500)], "lost": [0.5, math.inf]}, (1.0, 1.2)),
    plot.Lines(
        title="p95",
        x="offered, 1/s",
        y="s",
        lines={"ours": [plot.point(20, 0.8, 0.7, 0.9), plot.point(30, math.inf)]},
        mark=2.0,
        logarithmic=True,
    ),
    plot.Lines(title="CPU", x="streams", y="µs", lines={"frontend": [plot.point(8, 20.0)]}),
    plot.Stack(title="CPU", x="streams", y="µs", at=[8, 16], parts={"frontend": [20.0, 10.0], "Triton": [5.0, 4.0]}),
]


def test_a_picture_that_is_drawn_again_is_the_same(tmp_path: Path) -> None:
    """No date, no random ids: git shows what has changed."""
    for name in ("first.svg", "second.svg"):
        plot.write(tmp_path / name, PANELS)
    first = (tmp_path / "first.svg").read_text()
    assert first == (tmp_path / "second.svg").read_text()
    assert "<dc:date>" not in first


def test_words_stay_words(tmp_path: Path) -> None:
    """They can be searched, and read in a difference."""
    plot.write(tmp_path / "picture.svg", PANELS)
    text = (tmp_path / "picture.svg").read_text()
    assert all(
        f">{word}</text>" in text for word in ("done within", "offered, 1/s", "ours", "frontend", "Triton", "95 %")
    )


@pytest.mark.parametrize("times_s", [[0.25], [math.inf, math.inf], [0.2] * 1000])
def test_a_distribution_of_anything_can_be_drawn(times_s: list[float], tmp_path: Path) -> None:
    """One request, none that was answered, all alike: a report is not lost because of its picture."""
    plot.write(tmp_path / "picture.svg", [plot.Distribution("End", {"some": times_s})])
    assert (tmp_path / "picture.svg").stat().st_size > 1000


def test_a_point_of_several_runs_lies_between_them() -> None:
    """The middle is their median."""
    assert plot.point(20, 3.0, 1.0, 2.0) == (20, 1.0, 2.0, 3.0)
