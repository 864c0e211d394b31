"""What a panel is: its question, its unit, and what to do about the answer; no word of Grafana's. The panels are in rows/.

In an expression `{@}` stands for the instances that the viewer has chosen. Recorded series (`hermes2:...`) are of all instances:
they are what the alerts see.
"""

from __future__ import annotations

from typing import Literal

import msgspec

SECONDS, SHARE, COUNT, BYTES = "s", "percentunit", "short", "bytes"
A_SECOND, TOKENS_A_SECOND, CORES = "reqps", "suffix: tokens/s", "suffix: cores"
GENERATING = 'route=~"/v1/(chat/completions|completions|responses)"'


class Query(msgspec.Struct, frozen=True):
    legend: str
    expression: str


class Panel(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    description: str
    """What it means and what to do: Grafana shows it at the panel, docs/monitoring.md has it in a table."""
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["series", "number", "states", "names"] = "series"
    width: int = 8
    """Of 24 columns."""
    stacked: bool = False
    most: float | None = None
    """The axis ends here; it always begins at 0."""
    warn: float | None = None
    alarm: float | None = None
    """From here on a number is orange, red."""


class Row(msgspec.Struct, frozen=True):
    title: str
    panels: tuple[Panel, ...]


def quantiles(metric: str, more: str = "") -> tuple[Query, ...]:
    """p50, p95 and p99 of a histogram."""
    rate = f"sum by (le) (rate({metric}_bucket{{@{more}}}[$__rate_interval]))"
    return tuple(Query(f"p{int(q * 100)}", f"histogram_quantile({q}, {rate})") for q in (0.5, 0.95, 0.99))


def rates(metric: str, label: str) -> tuple[Query, ...]:
    """A counter's speed by one of its labels."""
    return (Query(f"{{{{{label}}}}}", f"sum by ({label}) (rate({metric}{{@}}[$__rate_interval]))"),)


def increases(metric: str, label: str) -> tuple[Query, ...]:
    """What a slow counter gained, by one of its labels."""
    return (Query(f"{{{{{label}}}}}", f"sum by ({label}) (increase({metric}{{@}}[$__rate_interval]))"),)


def number(
    title: str, unit: str, expression: str, description: str, warn: float | None = None, alarm: float | None = None
) -> Panel:
    return Panel(
        title=title,
        description=description,
        unit=unit,
        queries=(Query(title, expression),),
        kind="number",
        width=3,
        warn=warn,
        alarm=alarm,
    )
