"""`python -m deploy.containers.repository FOLDER`: writes the model repository that Triton reads in a container of its own.

The values of model_repository/hermes2/config.pbtxt hold (they are for one GPU) unless the environment says otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from frontend import settings as settings_module
from frontend.domain import model_card
from frontend.settings import ROOT, Settings, SettingsError

SOURCE = ROOT / "model_repository/hermes2"
OF_VLLM = {
    "dtype": "dtype",
    "max_model_len": "max_model_len",
    "max_num_seqs": "max_num_seqs",
    "max_queued": "max_num_queued_reqs",
    "kv_cache": "kv_cache_memory_bytes",
    "enforce_eager": "enforce_eager",
}
"""Settings of `engine` and what vLLM calls them."""


def parameters(settings: Settings, environment: Mapping[str, str]) -> dict[str, object]:
    """What differs from config.pbtxt: the model that lies there, and what the environment has set."""
    if (folder := settings.model_dir) is None:
        raise SettingsError("model_dir (HERMES2_MODEL_DIR): set it to a prepared model")
    card = model_card.read(folder)
    engine = settings.engine
    changed: dict[str, object] = {
        "vllm.model": str(model_card.files_of(folder, card)),
        "vllm.served_model_name": card.id,
        "health_timeout_s": engine.hang_timeout_s / 2,
        "drain_timeout_s": engine.drain_timeout_s,
    }
    for name, theirs in OF_VLLM.items():
        if environment.get(f"HERMES2_ENGINE_{name.upper()}"):
            value = getattr(engine, name)
            changed[f"vllm.{theirs}"] = int(value) if name == "kv_cache" else value
    return changed | {f"vllm.{name}": value for name, value in engine.extra.items()}


def write(target: Path, changed: Mapping[str, object]) -> None:
    """Fills `target` with the model `hermes2`, anew."""
    model = target / "hermes2"
    shutil.rmtree(model, ignore_errors=True)
    shutil.copytree(SOURCE / "1", model / "1", ignore=shutil.ignore_patterns("__pycache__"))
    config = text_format.Parse((SOURCE / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    for name, value in changed.items():
        config.parameters[name].string_value = value if isinstance(value, str) else json.dumps(value)
    (model / "config.pbtxt").write_text(text_format.MessageToString(config))


def main() -> None:
    """Ends with status 1 and one line where the model is not there or a setting is wrong."""
    try:
        changed = parameters(settings_module.load(), os.environ)
    except (OSError, SettingsError) as exc:
        raise SystemExit(f"hermes2: {exc}; docs/deployment.md tells how the model is fetched") from exc
    write(Path(sys.argv[1]), changed)
    for name, value in changed.items():
        print(f"{name} = {value}")


if __name__ == "__main__":
    main()
