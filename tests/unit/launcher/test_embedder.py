"""deploy/launcher/embedder: where the embedding model lies, and what Triton reads of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from deploy.launcher import embedder
from deploy.launcher.problem import Problem
from frontend import settings


def test_the_folder(minilm: Path, tmp_path: Path) -> None:
    """The embedded model's, the user's own, or none at all; what is none is refused with the setting's name."""
    assert (minilm / "modules.json").exists()
    assert embedder.folder(settings.load({"HERMES2_EMBEDDER_MODEL_DIR": str(minilm)})) == minilm
    assert embedder.folder(settings.load({"HERMES2_EMBEDDER_ENABLED": "false"})) is None
    with pytest.raises(Problem, match=r"embedder\.model_dir"):
        embedder.folder(settings.load({"HERMES2_EMBEDDER_MODEL_DIR": str(tmp_path)}))
    with pytest.raises(Problem, match="make serve"):
        embedder.folder(settings.load({"HERMES2_ENGINE_ENVIRONMENT": str(tmp_path)}))


def test_what_triton_reads(minilm: Path, tmp_path: Path) -> None:
    """Our files, and this machine's bounds in config.pbtxt; the rest of it as it stands in the repository."""
    loaded = settings.load({"HERMES2_EMBEDDER_THREADS": "2", "HERMES2_EMBEDDER_MAX_QUEUED": "7"})
    embedder.write(loaded, minilm, tmp_path / "embedder", "1.26.4")
    config = text_format.Parse((tmp_path / "embedder/config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (tmp_path / "embedder/1/model.py").exists()
    assert {name: p.string_value for name, p in config.parameters.items()} == {
        "model": str(minilm),
        "threads": "2",
        "required_numpy": "1.26.4",
    }
    policy = config.dynamic_batching.default_queue_policy
    assert policy.max_queue_size == 7
    assert policy.default_timeout_microseconds < loaded.embedder.timeout_s * 1e6
    assert config.max_batch_size == 16
