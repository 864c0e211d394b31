"""One command per question: `python -m perf QUESTION`. Each asks a running service, and says on what machine."""

from __future__ import annotations

import os
from pathlib import Path

import click

from perf import profiles


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


if __name__ == "__main__":
    main()
