"""One command per question: `python -m perf QUESTION`. Each asks a running service, and says on what machine."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from frontend.domain.embedding.encoder import EmbeddingEncoder
from perf import (
    added,
    context,
    headline,
    ingest,
    limits,
    memory,
    overload,
    path,
    plot,
    profiles,
    quality,
    retrieval_quality,
    retrieval_scale,
    retrieval_vectors,
    scale,
    soak,
    tracing,
    triton_sweep,
    versus,
)
from perf import turns as turns_module


@click.group(help=__doc__)
def main() -> None:
    gc.freeze()  # clients that collect garbage look like a service that waits


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
    show(text, report)


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
    show(text, report)


@main.command("ingest", help="How much of the embedding model's throughput is left when files are put into a store.")
@click.option("--url", default="http://127.0.0.1:11401/v1", show_default=True)
@click.option("--key-file", default=".hermes2/api-key", show_default=True, type=click.Path(path_type=Path))
@click.option("--windows", default=480, show_default=True, help="Of 200 tokens, each way and round.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def ingest_command(url: str, key_file: Path, windows: int, rounds: int, report: Path | None) -> None:
    key = os.environ.get("HERMES2_API_KEY") or key_file.read_text().strip()
    text = ingest.measure(url, key, windows, rounds)
    show(text, report)


@main.command("turns", help="What it costs to begin and to store a turn in SQL; needs no running service.")
@click.option("--turns", default=300, show_default=True)
@click.option("--writers", default=8, show_default=True)
@click.option("--postgres", help="The URL of an empty database, to be measured beside SQLite.")
@click.option("--valkey", "valkey_url", help="The URL of a Valkey: what a lease there would cost in addition.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def turns_command(turns: int, writers: int, postgres: str | None, valkey_url: str | None, report: Path | None) -> None:
    text = asyncio.run(turns_module.measure(turns, writers, postgres, valkey_url))
    show(text, report)


@main.command("retrieval", help="What search finds (--quality), and what it costs (--scale); needs no running service.")
@click.option("--quality", is_flag=True, help="On collections with known answers, which HERMES2_EVAL_DATA has.")
@click.option("--scale", is_flag=True, help="On synthetic vectors, 1,000 and more.")
@click.option("--url", help="Embed through this service, with its /v1; otherwise with .venv-engine.")
@click.option("--key-file", default=".hermes2/api-key", show_default=True, type=click.Path(path_type=Path))
@click.option("--cache", type=click.Path(path_type=Path), help="Keep vectors here for the next time.")
@click.option("--most", default=1_000_000, show_default=True, help="Of the synthetic vectors.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the tables to this file, too.")
def retrieval_command(
    quality: bool, scale: bool, url: str | None, key_file: Path, cache: Path | None, most: int, report: Path | None
) -> None:
    if quality == scale:
        raise click.UsageError("one of --quality and --scale")
    if scale:
        text = retrieval_scale.report(retrieval_scale.measure(most, lambda line: click.echo(line, err=True)), most)
    else:
        data = os.environ.get("HERMES2_EVAL_DATA")
        if not data:
            raise click.ClickException("HERMES2_EVAL_DATA is not set: the collections are not part of the repository")
        key = (os.environ.get("HERMES2_API_KEY") or key_file.read_text().strip()) if url else ""
        with tempfile.TemporaryDirectory() as scratch:
            text = retrieval_quality_report(Path(data), url, key, cache or Path(scratch))
    show(text, report)


def retrieval_quality_report(data: Path, url: str | None, key: str, cache: Path) -> str:
    folder = retrieval_vectors.folder()
    encoder = EmbeddingEncoder.from_folder(folder)
    embed = retrieval_vectors.from_service(url, key) if url else retrieval_vectors.from_model(encoder, folder)
    embeddings = retrieval_vectors.Embeddings(encoder, embed, cache)
    return retrieval_quality.report(
        retrieval_quality.measure(data, embeddings, lambda line: click.echo(line, err=True))
    )


@main.command("memory", help="What a conversation remembers of thousands of turns; needs no running service.")
@click.option("--questions", default=100, show_default=True, help="Sentences that are asked for (XQuAD).")
@click.option("--others", default=5000, show_default=True, help="Turns among which they are said.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def memory_command(questions: int, others: int, report: Path | None) -> None:
    data = os.environ.get("HERMES2_EVAL_DATA")
    if not data:
        raise click.ClickException("HERMES2_EVAL_DATA is not set: the questions are not part of the repository")
    found = asyncio.run(memory.measure(Path(data), questions, others, lambda line: click.echo(line, err=True)))
    text = memory.report(found, questions, others)
    show(text, report)


@main.command("overload", help="What is left when 2, 4, 10 times as much is asked, and beside a noisy neighbour.")
@click.option("--slots", default=16, show_default=True, help="Of the engine: few enough that it is busy with them.")
@click.option("--max-waiting", type=int, help="admission.max_waiting; otherwise the default.")
@click.option("--seconds", default=12.0, show_default=True, help="That are measured of each of the seven phases.")
@click.option("--warm", default=8.0, show_default=True, help="Seconds before them: until answers do not end together.")
@click.option("--rounds", default=3, show_default=True, help="Of all phases.")
@click.option("--scripted", is_flag=True, help="Without a model.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the tables to this file, too.")
def overload_command(
    slots: int, max_waiting: int | None, seconds: float, warm: float, rounds: int, scripted: bool, report: Path | None
) -> None:
    plan = overload.Plan(
        slots=slots, max_waiting=max_waiting, seconds=seconds, warm_s=warm, rounds=rounds, scripted=scripted
    )
    found = overload.measure(plan, lambda line: click.echo(line, err=True))
    text = overload.report(found, plan)
    show(text, report)


@main.command("headline", help="20 requests a second for a minute: how long each takes, with everything switched on.")
@click.option("--rate", default=20.0, show_default=True, help="Requests a second.")
@click.option("--seconds", default=60.0, show_default=True, help="Of each run.")
@click.option("--runs", default=3, show_default=True, help="Of even arrivals, and as many of a Poisson process.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def headline_command(rate: float, seconds: float, runs: int, report: Path | None) -> None:
    plan = headline.Plan(per_s=rate, seconds=seconds, runs=runs)
    found = headline.measure(plan, lambda line: click.echo(line, err=True))
    show(headline.report(found, plan), report, headline.pictures(found))


@main.command(
    "path",
    help="What frontend, Triton and stub cost per streamed token, with an engine that computes nothing; beside vLLM's own.",
)
@click.option("--streams", default="8,32,64,128,256", show_default=True, help="At a time, one level after the other.")
@click.option("--seconds", default=15.0, show_default=True, help="Of each level.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def path_command(streams: str, seconds: float, report: Path | None) -> None:
    plan = path.Plan(levels=[int(each) for each in streams.split(",")], seconds=seconds)
    found = path.measure(plan, lambda line: click.echo(line, err=True))
    show(path.report(found), report, path.pictures(found))


@main.command("added", help="What frontend and Triton add to the first token of a service that has nothing else to do.")
@click.option("--chats", default=100, show_default=True, help="One after the other.")
@click.option(
    "--pause", default=3.0, show_default=True, help="Seconds before each; vLLM's workers spin after a request."
)
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def added_command(chats: int, pause: float, report: Path | None) -> None:
    found = added.measure(chats, pause, lambda line: click.echo(line, err=True))
    show(added.report(found), report, added.pictures(found))


@main.command("versus", help="The same beside `vllm serve` and NVIDIA's backend; and how much each can do.")
@click.option("--rate", default=20, show_default=True, help="Requests a second.")
@click.option("--seconds", default=60.0, show_default=True, help="Of each run at that rate.")
@click.option("--probe", default=30.0, show_default=True, help="Seconds of each run of the search for the capacity.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--systems", default=",".join(versus.SYSTEMS), show_default=True, help="That are compared.")
@click.option(
    "--nvidia",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A checkout of github.com/triton-inference-server/vllm_backend; without it that one is not run.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Write the tables to this file, too.")
def versus_command(
    rate: int, seconds: float, probe: float, rounds: int, systems: str, nvidia: Path | None, report: Path | None
) -> None:
    chosen = [system for system in versus.SYSTEMS if system in systems.split(",")]
    if unknown := set(systems.split(",")) - set(chosen):
        raise click.UsageError(f"--systems: {', '.join(unknown)}; there are {', '.join(versus.SYSTEMS)}")
    plan = versus.Plan(per_s=rate, seconds=seconds, probe_s=probe, rounds=rounds, systems=chosen, nvidia=nvidia)
    found = versus.measure(plan, lambda line: click.echo(line, err=True))
    show(versus.report(found, plan), report, versus.pictures(found))


@main.command("triton", help="perf_analyzer against the model in Triton, at one request rate after the other.")
@click.option("--rates", default="4,8,12,16,20,24", show_default=True, help="Requests a second, one after the other.")
@click.option("--seconds", default=30.0, show_default=True, help="Of each rate.")
@click.option("--scripted", is_flag=True, help="Without a model.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def triton_command(rates: str, seconds: float, scripted: bool, report: Path | None) -> None:
    plan = triton_sweep.Plan(rates=[int(each) for each in rates.split(",")], seconds=seconds, scripted=scripted)
    found = triton_sweep.measure(plan, lambda line: click.echo(line, err=True))
    show(triton_sweep.report(found, plan), report, triton_sweep.pictures(found))


@main.command(
    "soak", help="Half an hour of a steady load: does memory, do times grow; and the memory budget beside it."
)
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--rate", default=5.0, show_default=True, help="Requests a second.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the tables to this file, too.")
def soak_command(minutes: float, rate: float, report: Path | None) -> None:
    plan = soak.Plan(per_s=rate, seconds=60 * minutes)
    found = soak.measure(plan, lambda line: click.echo(line, err=True))
    show(soak.report(found, plan), report, soak.pictures(found))


@main.command("scale", help="What a request costs as a tenant's conversations grow; needs no running service.")
@click.option("--most", default=10_000_000, show_default=True, help="Items; 10,000 first, then ten times as many.")
@click.option("--operations", default=300, show_default=True, help="Of each kind, at each level.")
@click.option("--postgres", help="The URL of an empty database, instead of a SQLite.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the tables to this file, too.")
def scale_command(most: int, operations: int, postgres: str | None, report: Path | None) -> None:
    plan = scale.Plan(levels=scale.levels(most), operations=operations)
    found = asyncio.run(scale.measure(plan, postgres, lambda line: click.echo(line, err=True)))
    show(scale.report(found, plan, "PostgreSQL" if postgres else "SQLite"), report, scale.pictures(found))


@main.command("limits", help="How exact limits are: four processes, ten times the load, and a Valkey that is paused.")
@click.option("--seconds", default=75.0, show_default=True, help="Under load, for requests and for tokens each.")
@click.option(
    "--pause", default=6.0, show_default=True, help="Seconds without Valkey; after 10 the launcher starts another."
)
@click.option("--report", type=click.Path(path_type=Path), help="Write the tables to this file, too.")
def limits_command(seconds: float, pause: float, report: Path | None) -> None:
    found = limits.measure(seconds, pause, lambda line: click.echo(line, err=True))
    text = limits.report(found, seconds, pause)
    show(text, report)


@main.command("tracing", help="What spans cost a request: none, none exported, exported; needs no running service.")
@click.option("--rounds", default=30, show_default=True)
@click.option("--requests", default=150, show_default=True, help="Of each way, in a round.")
@click.option(
    "--models",
    default=".hermes2/models",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder of prepared models; the tokenizer of the first one is used.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Write the table to this file, too.")
def tracing_command(rounds: int, requests: int, models: Path, report: Path | None) -> None:
    model_dir = next(iter(sorted(models.glob("*/hermes2.json"))), models).parent
    found = asyncio.run(tracing.measure(model_dir, rounds, requests, lambda line: click.echo(line, err=True)))
    text = tracing.report(found, rounds, requests)
    show(text, report)


@main.command(
    "quality", help="What INT8 weights change: a held text, plain answers, tokens/s; needs no running service."
)
@click.option("--model", default="smollm2-135m", show_default=True, help="As HERMES2_MODEL.")
@click.option("--positions", default=10_000, show_default=True, help="Of the held text (XQuAD), at least.")
@click.option("--rounds", default=5, show_default=True, help="Of the measurement of speed; 0: none.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the tables to this file, too.")
def quality_command(model: str, positions: int, rounds: int, report: Path | None) -> None:
    data = os.environ.get("HERMES2_EVAL_DATA")
    if not data:
        raise click.ClickException("HERMES2_EVAL_DATA is not set: the text is not part of the repository")
    found = quality.measure(model, Path(data), positions, rounds, lambda line: click.echo(line, err=True))
    text = quality.report(found, model)
    show(text, report)


def show(text: str, report: Path | None, panels: Sequence[plot.Panel] = ()) -> None:
    """`panels`: drawn beside the report."""
    click.echo(text)
    if report is None:
        return
    if panels:
        picture = report.with_suffix(".svg")
        plot.write(picture, panels)
        text += f"\n![the same as a picture]({picture.name})\n"
    report.write_text(text)


if __name__ == "__main__":
    main()
