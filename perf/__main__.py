"""One command per question: `python -m perf QUESTION`. Each asks a running service, and says on what machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import click

from perf import context, profiles
from perf import turns as turns_module


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command("profiles", help="What a conversation profile changes: three small tasks, every profile of the service.")
@click.option("--url", default="http://127.0.0.1:11401/v1", show_default=True)
@click.option("--key-file", default=".hermes2/api-key", show_default=True, type=click.Path(path_type=Path))
@click.option("--questions", default=40, show_default=True, help="Questions about texts (XQuAD), per profile.")
@click.option("--concurrency", default=8, show_default=True)
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def profiles_command(url: str, key_file: Path, questions: int, concurrency: int, report: Path | None) -> None:
    key = os.environ.get("HERMES2_API_KEY") or key_file.read_text().strip()
    data = os.environ.get("HERMES2_EVAL_DATA")
    if not data:
        raise click.ClickException(
            "HERMES2_EVAL_DATA is not set: the questions (xquad.en.json) are not part of the repository"
        )
    text = profiles.measure(url, key, Path(data) / "xquad.en.json", questions, concurrency)
    click.echo(text)
    if report is not None:
        report.write_text(text)


@main.command("context", help="What a long conversation costs: cached share and time to first token, turn after turn.")
@click.option("--url", default="http://127.0.0.1:11401/v1", show_default=True)
@click.option("--key-file", default=".hermes2/api-key", show_default=True, type=click.Path(path_type=Path))
@click.option("--turns", default=200, show_default=True)
@click.option("--window", default=8192, show_default=True, help="Tokens of prompt and answer.")
@click.option("--baseline/--no-baseline", default=True, show_default=True, help="Also as clients do it themselves.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def context_command(url: str, key_file: Path, turns: int, window: int, baseline: bool, report: Path | None) -> None:
    key = os.environ.get("HERMES2_API_KEY") or key_file.read_text().strip()
    found = context.compare(url, key, turns, window, baseline, lambda line: click.echo(line, err=True))
    text = context.report(found, turns, window)
    click.echo(text)
    if report is not None:
        report.write_text(text)


@main.command("turns", help="What it costs to begin and to store a turn in SQL; needs no running service.")
@click.option("--turns", default=300, show_default=True)
@click.option("--writers", default=8, show_default=True)
@click.option("--postgres", help="The URL of an empty database, to be measured beside SQLite.")
@click.option("--valkey", "valkey_url", help="The URL of a Valkey: what a lease there would cost in addition.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def turns_command(turns: int, writers: int, postgres: str | None, valkey_url: str | None, report: Path | None) -> None:
    text = asyncio.run(turns_module.measure(turns, writers, postgres, valkey_url))
    click.echo(text)
    if report is not None:
        report.write_text(text)


if __name__ == "__main__":
    main()
