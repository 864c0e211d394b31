"""deploy/launcher/preflight: what is checked before anything starts."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploy.launcher import preflight
from deploy.launcher.problem import Problem
from frontend import settings


def test_a_key_is_made_once(tmp_path: Path) -> None:
    """Readable by its owner only, shown when it is made and never again, and kept."""
    loaded = settings.load({"HERMES2_HOME": str(tmp_path)})
    key = preflight.ensure_api_key(loaded)
    assert key is not None
    assert len(key) >= 40
    assert stat.S_IMODE(loaded.api_key_file.stat().st_mode) == 0o600
    assert preflight.ensure_api_key(loaded) is None
    assert loaded.api_key_file.read_text().strip() == key


def test_a_preset_key_is_not_written_down(tmp_path: Path) -> None:
    """HERMES2_API_KEY stays in the environment."""
    loaded = settings.load({"HERMES2_HOME": str(tmp_path), "HERMES2_API_KEY": "preset-key-0123456789-012345"})
    assert preflight.ensure_api_key(loaded) is None
    assert list(tmp_path.iterdir()) == []


def test_one_port_for_two_things_is_refused() -> None:
    """Before Triton fails on it."""
    with pytest.raises(Problem, match="given twice"):
        preflight.check_ports(settings.load({"HERMES2_PORT": "18111", "HERMES2_TRITON_GRPC_PORT": "18111"}))


@pytest.mark.parametrize("depth", [1, 30])
def test_the_socket_of_valkey_fits_into_a_socket_address(tmp_path: Path, depth: int) -> None:
    """A deep home gets a socket in the folder for temporary files: the kernel takes 108 bytes."""
    home = tmp_path.joinpath(*["folder"] * depth)
    path = preflight.valkey_socket(home)
    assert len(str(path)) <= 108
    assert path.parent.is_dir()
    assert path == preflight.valkey_socket(home)


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is free and what is needed."""
    monkeypatch.setattr(preflight, "NEEDED_FREE_BYTES", 10**18)
    with pytest.raises(Problem, match="GB free"):
        preflight.check_disk(tmp_path)
