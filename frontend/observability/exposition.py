"""Several sources of metrics as one text: each family once, whoever else has it, and gauges that are asked at each scrape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

OF_A_PROCESS = ("python_", "process_")
"""Every Prometheus client counts these of its own process: under one name they could be anybody's."""
BIRTH = "_created"
"""When a counter began: a second series for each that Prometheus does not read in this format."""
OF_A_FAMILY = ("", "_total", "_created", "_bucket", "_sum", "_count")
"""How the samples' names go on."""
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def joined(own: str, *foreign: str) -> str:
    """`own`, and what the others have beside it."""
    seen = {name for name, _ in families(own)}
    parts = [own]
    for text in foreign:
        for name, lines in families(text):
            if name not in seen and not name.startswith(OF_A_PROCESS) and not name.endswith(BIRTH):
                seen.add(name)
                parts.extend(lines)
    return "".join(parts)


def families(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each with its lines. Samples that nobody has announced are a family each."""
    name, announced, lines = "", False, list[str]()
    for line in text.splitlines(keepends=True):
        if line.isspace():
            continue
        new_name, new_announced = announced_by(line) or (sample_of(line), False)
        belongs = new_name == name if new_announced else announced and new_name.removeprefix(name) in OF_A_FAMILY
        if not belongs:
            if lines:
                yield name, lines
            name, announced, lines = new_name, new_announced, []
        lines.append(line if line.endswith("\n") else line + "\n")
    if lines:
        yield name, lines


def announced_by(line: str) -> tuple[str, bool] | None:
    """The family's name in a line of HELP or TYPE."""
    words = line.split(maxsplit=3)
    return (words[2], True) if len(words) > 2 and words[0] == "#" and words[1] in ("HELP", "TYPE") else None


def sample_of(line: str) -> str:
    match = NAME.match(line)
    return match[0] if match else ""


class Gauges(Collector):
    """Values that somebody has just asked for: nothing of them is kept, in no process."""

    def __init__(self) -> None:
        self._gauges: list[GaugeMetricFamily] = []

    def add(self, name: str, text: str, rows: Iterable[tuple[Mapping[str, str], float]]) -> None:
        """`rows`: labels and values, at least one; all have the same labels."""
        rows = list(rows)
        names: Sequence[str] = list(rows[0][0])
        gauge = GaugeMetricFamily(name, text, labels=names)
        for labels, value in rows:
            gauge.add_metric([labels[label] for label in names], value)
        self._gauges.append(gauge)

    def collect(self) -> Iterable[Metric]:
        return self._gauges

    def text(self) -> str:
        registry = CollectorRegistry()
        registry.register(self)
        return prometheus_client.generate_latest(registry).decode()
