"""What INT8 weights change: perplexity, likeliest tokens, plain answers, tokens/s; beside bf16 and float32."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from deploy.launcher import models
from deploy.launcher.triton import openmp
from frontend import settings
from frontend.domain import model_card
from perf import machine

SCRIPTS = Path(__file__).parent
KINDS: tuple[Literal["as-is", "int8"], ...] = ("as-is", "int8")
STREAMS = (1, 16)
SPEED_TOKENS = 48
ANSWER_TOKENS = 40
QUESTIONS = (
    "What is the capital of France?",
    "What is 2 + 2?",
    "Who wrote Romeo and Juliet?",
    "What colour is the sky on a clear day?",
    "How many days are in a week?",
    "What is the largest planet of the solar system?",
    "In which country is the city of Tokyo?",
    "What is the opposite of hot?",
    "What do bees make?",
    "Translate 'hello' into Spanish.",
    "What is the chemical formula of water?",
    "Name three primary colours.",
)


class Scores(msgspec.Struct, frozen=True):
    """Of the positions of the held text, in its order."""

    losses: NDArray[np.float64]
    """-log of the probability that the model gave to the token that stood there."""
    tops: NDArray[np.int64]
    """The token that it held for the likeliest."""


class Found(msgspec.Struct, frozen=True):
    reference: Scores
    scores: Mapping[str, Scores]
    """By kind of weights, through vLLM."""
    answers: Mapping[str, Sequence[str]]
    speeds: Mapping[str, Mapping[int, Sequence[float]]]
    """Tokens/s by kind and streams, a value a round."""
    bytes: Mapping[str, int]
    """On disk."""


class Engine:
    """vLLM in a process of its own (perf/quality_vllm.py)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the engine has ended; the reason stands above")
        found: dict[str, Any] = json.loads(line)
        return found


def measure(name: str, data: Path, positions: int, rounds: int, say: Callable[[str], None]) -> Found:
    """`name`: as HERMES2_MODEL. `data`: the folder with XQuAD."""
    chosen = settings.load()
    environment = chosen.engine.environment
    folders = {kind: models.prepare(name, chosen.models_dir, environment, say, kind) for kind in KINDS}
    cards = {kind: model_card.read(folder) for kind, folder in folders.items()}
    files = {kind: model_card.files_of(folder, cards[kind]) for kind, folder in folders.items()}
    tokenizer = Tokenizer.from_file(str(files["as-is"] / "tokenizer.json"))
    text = held(tokenizer, data / "xquad.en.json", positions)
    say("float32, without vLLM")
    reference = in_float32(environment, files["as-is"], text)
    scores: dict[str, Scores] = {}
    answers: dict[str, Sequence[str]] = {}
    speeds: dict[str, dict[int, list[float]]] = {
        kind: {streams: list[float]() for streams in STREAMS} for kind in KINDS
    }
    with ExitStack() as running:
        engines = {kind: running.enter_context(engine(environment, files[kind])) for kind in KINDS}
        for kind, each in engines.items():
            say(f"{kind}: {sum(map(len, text))} tokens")
            scores[kind] = decoded(each.ask("score", prompts=text))
            prompts = [tokenizer.encode(chat(question), add_special_tokens=False).ids for question in QUESTIONS]
            answers[kind] = each.ask("answer", prompts=prompts, max_tokens=ANSWER_TOKENS)["texts"]
        for number in range(rounds):
            for streams in STREAMS:
                for kind, each in list(engines.items())[:: 1 if number % 2 else -1]:
                    speed = each.ask("speed", streams=streams, tokens=SPEED_TOKENS)["tokens_per_s"]
                    say(f"{kind}, {streams} streams: {speed:.0f} tokens/s")
                    speeds[kind][streams].append(speed)
    return Found(reference, scores, answers, speeds, {kind: card.weights_bytes for kind, card in cards.items()})


def held(tokenizer: Tokenizer, path: Path, positions: int) -> list[list[int]]:
    """Paragraphs of XQuAD, each third first, so that few of them are of many articles."""
    paragraphs = [each["context"] for article in json.loads(path.read_text())["data"] for each in article["paragraphs"]]
    chosen: list[list[int]] = []
    for paragraph in (paragraph for start in range(3) for paragraph in paragraphs[start::3]):
        if sum(len(ids) - 1 for ids in chosen) >= positions:
            break
        chosen.append(tokenizer.encode(paragraph).ids[:1000])
    return chosen


def chat(question: str) -> str:
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def in_float32(environment: Path, folder: Path, text: Sequence[Sequence[int]]) -> Scores:
    done = subprocess.run(
        [environment / "bin/python", SCRIPTS / "quality_reference.py", folder],
        input=json.dumps(text),
        stdout=subprocess.PIPE,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
        text=True,
        check=True,
    )
    return decoded(json.loads(done.stdout))


def decoded(found: Mapping[str, Any]) -> Scores:
    return Scores(np.array(found["losses"], np.float64), np.array(found["tops"], np.int64))


@contextmanager
def engine(environment: Path, folder: Path) -> Iterator[Engine]:
    """Kernels and threads as Triton's stub has them; the engine is in the process that asks it."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    variables = {
        **os.environ,
        **openmp(environment),
        "PATH": f"{environment / 'bin'}:{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": cores,
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    }
    process = subprocess.Popen(
        [environment / "bin/python", SCRIPTS / "quality_vllm.py", folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=sys.stderr,
        env=variables,
        text=True,
    )
    try:
        running = Engine(process)
        running.answer()
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def report(found: Found, name: str) -> str:
    count = len(found.reference.losses)
    base = found.scores["as-is"]
    rows = [row("float32, transformers", found.reference, found.reference, base)]
    rows += [row(f"{kind}, vLLM", scores, found.reference, base) for kind, scores in found.scores.items()]
    answers = [
        f"| {question} |" + "".join(f" {shown(texts[number])} |" for texts in found.answers.values())
        for number, question in enumerate(QUESTIONS)
    ]
    kinds = list(found.scores)
    return "\n".join(
        [
            "# What INT8 weights change",
            "",
            f"`python -m perf quality`: model {name}, {count} positions of XQuAD's English paragraphs; {machine.describe()}.",
            "`as-is` is bf16, as vLLM computes it; both through vLLM's own kernels. ±: standard error of the difference,",
            "position by position.",
            "",
            "| | perplexity | against bf16 | likeliest token as in float32 |",
            "|---|---|---|---|",
            *rows,
            "",
            *speed_table(found),
            f"Greedy answers, the first {ANSWER_TOKENS} tokens:",
            "",
            "| | " + " | ".join(kinds) + " |",
            "|---" * (1 + len(kinds)) + "|",
            *answers,
            "",
        ]
    )


def speed_table(found: Found) -> list[str]:
    rounds = len(found.speeds["as-is"][1])
    if not rounds:
        return []
    rows = [
        f"| {kind} | {found.bytes[kind] / 1e6:.0f} MB |"
        + "".join(f" {statistics.median(values):.0f} |" for values in by_streams.values())
        for kind, by_streams in found.speeds.items()
    ]
    return [
        f"Decoding, vLLM alone in one process, eager, medians of {rounds} rounds in turn, tokens/s:",
        "",
        "| | weights | " + " | ".join(f"{n} stream{'s' * (n > 1)}" for n in STREAMS) + " |",
        "|---" * (2 + len(STREAMS)) + "|",
        *rows,
        "",
    ]


def row(name: str, scores: Scores, reference: Scores, base: Scores) -> str:
    difference = scores.losses - base.losses
    change = 100 * float(np.expm1(difference.mean()))
    error = 100 * float(difference.std() / np.sqrt(len(difference)))
    against = "" if scores is base else f"{change:+.2f} % ± {error:.2f}"
    agreement = "" if scores is reference else f"{100 * float((scores.tops == reference.tops).mean()):.2f} %"
    return f"| {name} | {float(np.exp(scores.losses.mean())):.3f} | {against} | {agreement} |"


def shown(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
