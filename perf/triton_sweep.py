"""NVIDIA's own tool against our model in Triton, without the frontend: perf_analyzer, at one request rate after the other.

Chats of the headline's size as ready text, over gRPC, streamed. Its figures are taken from the times of every response that it
writes: its own latency of a model that answers with many messages is that of the first.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from frontend import settings as settings_module
from perf import headline, machine, open_loop, perf_analyzer, plot, service
from perf.overload_load import percentile

WINDOWS = 3
"""That perf_analyzer measures of each rate."""
MORE = 1.5
"""Prompts than the rate needs: its windows are longer than they were said to be."""
WARM_S = 6.0
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
SHARES = (0.5, 0.95, 0.99)
Say = Callable[[str], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    rates: Sequence[int]
    """Requests a second."""
    seconds: float
    """Of each rate."""
    scripted: bool = False


class Request(msgspec.Struct, frozen=True):
    """Nanoseconds."""

    timestamp: int
    """When it was sent."""
    response_timestamps: Sequence[int]

    @property
    def ttft_s(self) -> float:
        return (self.response_timestamps[0] - self.timestamp) / 1e9

    @property
    def total_s(self) -> float:
        return (self.response_timestamps[-1] - self.timestamp) / 1e9


class Offered(msgspec.Struct, frozen=True):
    value: float
    """Requests a second."""


class Experiment(msgspec.Struct, frozen=True):
    """One rate, as perf_analyzer writes it with --profile-export-file."""

    experiment: Offered
    requests: Sequence[Request]

    @property
    def answered_per_s(self) -> float:
        ends = [each.response_timestamps[-1] for each in self.requests]
        return 1e9 * len(ends) / (max(ends) - min(each.timestamp for each in self.requests))

    def ttft_s(self, share: float) -> float:
        return percentile([each.ttft_s for each in self.requests], share)

    def total_s(self, share: float) -> float:
        return percentile([each.total_s for each in self.requests], share)


class Export(msgspec.Struct, frozen=True):
    experiments: Sequence[Experiment]


def measure(plan: Plan, say: Say) -> Sequence[Experiment]:
    settings: dict[str, object] = {"EMBEDDER_ENABLED": "false", "LOG_LEVEL": "warning"}
    if plan.scripted:
        settings |= {"ENGINE_BACKEND": "scripted", "ENGINE_SCRIPTED_TOKEN_INTERVAL_MS": 5}
    program = perf_analyzer.command(settings_module.load())
    with TemporaryDirectory() as folder, service.running(**settings) as running:
        address = f"127.0.0.1:{running.environment['HERMES2_TRITON_GRPC_PORT']}"
        at(program, address, plan.rates[0], WARM_S, Path(folder), 0)
        found: list[Experiment] = []
        for number, per_s in enumerate(plan.rates, 1):
            found.append(at(program, address, per_s, plan.seconds, Path(folder), number))
            say(row(found[-1]))
    return found


def at(
    program: tuple[list[str], dict[str, str]], address: str, per_s: int, seconds: float, folder: Path, seed: int
) -> Experiment:
    """One rate, in a run of its own: of several, each would begin with the same prompts, and the prefix cache would answer.

    Evenly: perf_analyzer's own Poisson process sends 16.4 requests a second where 20 are asked for, each time the same.
    Raises RuntimeError with what it says if it fails, as it does when a request has.
    """
    inputs, export = folder / f"inputs-{seed}.json", folder / f"profile-{seed}.json"
    inputs.write_bytes(data(int(MORE * per_s * seconds), seed))
    argv, environment = program
    argv = [*argv, "-m", "hermes2", "-i", "grpc", "-u", address, "--async", "--streaming", "--input-data", str(inputs)]
    argv += ["--request-rate-range", str(per_s), "--request-distribution", "constant"]
    argv += ["--measurement-interval", str(int(1e3 * seconds / WINDOWS)), "--max-trials", str(WINDOWS)]
    argv += ["--stability-percentage", "999", "--profile-export-file", str(export)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"perf_analyzer has failed:\n{done.stdout}{done.stderr}")
    return msgspec.json.decode(export.read_bytes(), type=Export).experiments[0]


def data(requests: int, seed: int) -> bytes:
    """perf_analyzer's --input-data; no two prompts are alike."""
    sampling = {"max_tokens": headline.ANSWER_TOKENS, "ignore_eos": True, "temperature": 0.7}
    given = {
        "stream": [True],
        "sampling_parameters": [msgspec.json.encode(sampling).decode()],
        "exclude_input_in_output": [True],
    }
    prompts = open_loop.prompts(requests, words=headline.PROMPT_WORDS, seed=seed)
    return msgspec.json.encode(
        {"data": [{"text_input": [open_loop.as_text(prompt, SYSTEM)], **given} for prompt in prompts]}
    )


COLUMNS = (
    "offered, 1/s",
    "answered, 1/s",
    "requests",
    *(f"TTFT p{100 * share:.0f}, ms" for share in SHARES),
    *(f"p{100 * share:.0f}, ms" for share in SHARES),
    "messages an answer",
)


def row(one: Experiment) -> str:
    messages = sum(len(each.response_timestamps) for each in one.requests) / len(one.requests)
    cells = [
        f"{one.experiment.value:g}",
        f"{one.answered_per_s:.1f}",
        str(len(one.requests)),
        *(f"{1e3 * one.ttft_s(share):,.0f}" for share in SHARES),
        *(f"{1e3 * one.total_s(share):,.0f}" for share in SHARES),
        f"{messages:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def pictures(found: Sequence[Experiment]) -> list[plot.Panel]:
    return [
        plot.Lines(
            title=title,
            x="offered, 1/s",
            y="ms",
            lines={
                f"p{100 * share:.0f}": [
                    plot.point(each.experiment.value, 1e3 * getattr(each, name)(share)) for each in found
                ]
                for share in SHARES
            },
            logarithmic=True,
        )
        for title, name in (("First token", "ttft_s"), ("End of the answer", "total_s"))
    ]


def report(found: Sequence[Experiment], plan: Plan) -> str:
    """As Markdown."""
    engine = "the scripted engine" if plan.scripted else "smollm2-135m"
    how = (
        f"`python -m perf triton` on {machine.describe()}: {engine}; perf_analyzer over gRPC, streaming, even arrivals,"
        f" {plan.seconds:.0f} s of each rate; chats of about 60 prompt and {headline.ANSWER_TOKENS} answer tokens. Times"
        " are from when perf_analyzer sent a request; it runs on the same machine."
    )
    table = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *map(row, found)]
    return "\n".join(["# perf_analyzer against Triton", "", how, "", *table, ""])
