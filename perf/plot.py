"""Pictures of what was measured, as SVG beside a report: the one place that knows matplotlib.

Text stays text, ids are made from a fixed salt, and there is no date: a picture that is drawn again differs in what differs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

WIDTH_IN, HEIGHT_IN = 5.0, 3.6
"""Of one panel."""
SHARES = (*(number / 200 for number in range(1, 200)), 0.998, 0.999)
"""At which a distribution is drawn: a run has thousands of requests, and a file of each of them changes everywhere."""
SHOWN = (0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999)


Point = tuple[float, float, float, float]
"""x, and of y between what it lies, with the middle in the middle."""


class Distribution(msgspec.Struct, frozen=True):
    """Which share was done within what time: the time on a logarithmic axis, the share on one that stretches both ends."""

    title: str
    times_s: Mapping[str, Sequence[float]]
    """Infinite: never."""
    marks_s: Sequence[float] = ()

    def draw(self, axes: Axes) -> None:
        for name, times_s in self.times_s.items():
            ordered = sorted(times_s)
            points = [(1e3 * ordered[int(share * len(ordered))], share) for share in SHARES]
            seen = [(time_ms, share) for time_ms, share in points if math.isfinite(time_ms)]
            axes.plot([time_ms for time_ms, _ in seen], [share for _, share in seen], label=name)
        for mark_s in self.marks_s:
            axes.axvline(1e3 * mark_s, color="grey", linestyle="--", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_yscale("logit")
        axes.set_ylim(SHARES[0], SHARES[-1])
        axes.yaxis.set_major_locator(FixedLocator(SHOWN))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.yaxis.set_minor_locator(NullLocator())
        plain(axes.xaxis)
        axes.set_xlabel("ms")
        axes.set_ylabel("done within")


class Lines(msgspec.Struct, frozen=True, kw_only=True):
    """A figure against another; where several runs gave it, between what they lie."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[Point]]
    """What is infinite is left out."""
    mark: float | None = None
    """Of y."""
    logarithmic: bool = False
    """The axis of y."""

    def draw(self, axes: Axes) -> None:
        for name, points in self.lines.items():
            seen = sorted(point for point in points if all(map(math.isfinite, point)))
            middles = [middle for _, _, middle, _ in seen]
            below = [middle - low for _, low, middle, _ in seen]
            above = [high - middle for _, _, middle, high in seen]
            axes.errorbar(
                [x for x, *_ in seen], middles, [below, above], label=name, marker="o", markersize=3, capsize=2
            )
        if self.mark is not None:
            axes.axhline(self.mark, color="grey", linestyle="--", linewidth=0.8)
        if self.logarithmic:
            axes.set_yscale("log")
            plain(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of a whole, one upon the other."""

    title: str
    x: str
    y: str
    at: Sequence[float]
    """Of x."""
    parts: Mapping[str, Sequence[float]]

    def draw(self, axes: Axes) -> None:
        axes.stackplot(self.at, *self.parts.values(), labels=list(self.parts))
        axes.set_xlabel(self.x)
        axes.set_ylabel(self.y)


Panel = Distribution | Lines | Stack


def point(x: float, *values: float) -> Point:
    """Of one or more values of y."""
    return x, min(values), median(values), max(values)


def plain(axis: mpl.axis.Axis) -> None:
    """A logarithmic axis with numbers as people write them."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def write(path: Path, panels: Sequence[Panel]) -> None:
    """Side by side, as SVG."""
    with mpl.rc_context({"svg.hashsalt": "hermes2", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure((WIDTH_IN * len(panels), HEIGHT_IN), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            panel.draw(axes)
            axes.set_title(panel.title)
            axes.grid(linewidth=0.3)
            axes.legend()
        figure.savefig(path, format="svg", metadata={"Date": None})
