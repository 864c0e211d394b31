"""The panels of the dashboard as tables of docs/monitoring.md, between two marks; the rest of the page is written by hand."""

from __future__ import annotations

from pathlib import Path

from deploy.grafana.panels import Row
from deploy.grafana.rows import ROWS

FILE = Path(__file__).resolve().parents[2] / "docs/monitoring.md"
BEGIN = "<!-- panels: written by `python -m deploy.grafana` from deploy/grafana/rows -->"
END = "<!-- /panels -->"


def text(page: str) -> str:
    """The page with its tables as they should be."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{FILE.name} lacks its marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def tables() -> str:
    return "\n".join(table(row) for row in ROWS)


def table(row: Row) -> str:
    lines = [f"### {row.title}", "", "| panel | what it means, and what to do |", "|---|---|"]
    lines += [f"| {panel.title} | {panel.description.replace('|', chr(92) + '|')} |" for panel in row.panels]
    return "\n".join(lines) + "\n"
