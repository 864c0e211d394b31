"""frontend/settings: the tree, its names, its refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontend import settings
from frontend.settings import ByteSize, SettingsError


def test_the_mission_numbers_are_the_defaults() -> None:
    """Port 11401 on loopback, 30 GB, 4 cores, one worker, the embedded model."""
    defaults = settings.load({})
    assert (defaults.host, defaults.port, defaults.workers) == ("127.0.0.1", 11401, 1)
    assert (defaults.memory_limit, defaults.cpus, defaults.model) == (30 * 10**9, 4, "smollm2-135m")
    assert defaults.triton.grpc_port == 8001


def test_every_setting_has_a_variable_and_a_description() -> None:
    """Names are unique, and each says what it is."""
    leaves = list(settings.leaves())
    assert len({leaf.variable for leaf in leaves}) == len(leaves)
    for leaf in leaves:
        assert any(getattr(meta, "description", None) for meta in getattr(leaf.annotation, "__metadata__", ())), (
            leaf.path
        )


@pytest.mark.parametrize(
    ("variable", "text", "path"),
    [
        ("HERMES2_PORT", "0", "port"),
        ("HERMES2_PORT", "http", "port"),
        ("HERMES2_WORKERS", "0", "workers"),
        ("HERMES2_MEMORY_LIMIT", "much", "memory_limit"),
        ("HERMES2_API_KEY", "short", "api_key"),
        ("HERMES2_ENGINE_ENFORCE_EAGER", "perhaps", "engine.enforce_eager"),
        ("HERMES2_ENGINE_DTYPE", "int3", "engine.dtype"),
        ("HERMES2_ENGINE_EXTRA", "not json", "engine.extra"),
        ("HERMES2_HTTP_KEEPALIVE_S", "-1", "http.keepalive_s"),
        ("HERMES2_LOG_FORMAT", "xml", "log.format"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(variable: str, text: str, path: str) -> None:
    """The message begins with the setting and names its variable."""
    with pytest.raises(SettingsError) as caught:
        settings.load({variable: text})
    assert str(caught.value).startswith(path)
    assert variable in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("30GB", 30 * 10**9), ("512MiB", 512 * 2**20), (" 1.5 gb ", 1_500_000_000), ("1024", 1024), ("2 KiB", 2048)],
)
def test_sizes(text: str, size: int) -> None:
    """GB is ten to the ninth, GiB two to the thirtieth."""
    assert ByteSize.parse(text) == size


def test_a_file_holds_the_same_tree_and_the_environment_wins(tmp_path: Path) -> None:
    """HERMES2_CONFIG names a TOML file; its mistakes are told the same way."""
    file = tmp_path / "hermes2.toml"
    file.write_text('port = 12000\nmemory_limit = "8GB"\n[engine]\nmax_num_seqs = 4\n[engine.extra]\nseed = 1\n')
    loaded = settings.load({"HERMES2_CONFIG": str(file), "HERMES2_PORT": "12001"})
    assert (loaded.port, loaded.memory_limit, loaded.engine.max_num_seqs, loaded.engine.extra) == (
        12001,
        8 * 10**9,
        4,
        {"seed": 1},
    )
    for text, path in (("prot = 1", "prot"), ("[engine]\ndtype = 3", "engine.dtype"), ("port = ", "HERMES2_CONFIG")):
        file.write_text(text)
        with pytest.raises(SettingsError, match=path):
            settings.load({"HERMES2_CONFIG": str(file)})


def test_misspelt_variables_are_known() -> None:
    """What looks like a setting and is none is reported, not silently ignored."""
    environment = {"HERMES2_PROT": "1", "HERMES2_PORT": "1", "HERMES2_CONTRACTS_DIR": "x", "OTHER": "x"}
    assert settings.unknown_variables(environment) == ["HERMES2_PROT"]


def test_the_key_does_not_show_itself() -> None:
    """Settings may be printed; the key may not."""
    key = "a-very-secret-key-0123456789"
    loaded = settings.load({"HERMES2_API_KEY": key})
    assert loaded.api_key == key
    assert key not in repr(loaded)
