"""frontend/domain/profiles.py: data that is checked before anybody is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from frontend import settings
from frontend.domain import profiles
from frontend.domain.errors import InvalidRequest
from frontend.runtime import BUILT_IN_PROFILES, load_profiles

GOOD = 'name = "mine"\nversion = {version}\ndescription = "Mine."\n'


def write(folder: Path, text: str, name: str = "mine.toml") -> Path:
    (folder / name).write_text(text)
    return folder


def test_the_newest_version_is_what_a_name_means(tmp_path: Path) -> None:
    """An exact version stays reachable."""
    write(tmp_path, GOOD.format(version=2), "a.toml")
    write(tmp_path, GOOD.format(version=10), "b.toml")
    found = profiles.load([BUILT_IN_PROFILES, tmp_path])
    assert found.get("mine").version == 10
    assert found.get("mine@2").version == 2
    assert found.get(None).name == "default"
    with pytest.raises(InvalidRequest, match="There is no profile 'mine@3'"):
        found.get("mine@3")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name =", "mine.toml"),
        ('name = "Mine"\nversion = 1\ndescription = "x"', r"\$\.name"),
        ('name = "mine"\nversion = 0\ndescription = "x"', r"\$\.version"),
        (GOOD.format(version=1) + "[sampling]\ntemperature = 3.0", r"\$\.sampling\.temperature"),
        (GOOD.format(version=1) + 'tool_style = "loud"', r"\$\.tool_style"),
        (GOOD.format(version=1) + "colour = 1", "colour"),
        (GOOD.format(version=1).replace("mine", "default"), "the same name and version"),
    ],
)
def test_a_wrong_profile_keeps_the_service_from_starting(tmp_path: Path, text: str, says: str) -> None:
    """One line that names the setting, the file and the field."""
    write(tmp_path, text)
    with pytest.raises(settings.SettingsError, match=r"profiles \(HERMES2_PROFILES\): .*" + says):
        load_profiles(settings.load({"HERMES2_PROFILES": str(tmp_path)}))


def test_there_is_always_a_default(tmp_path: Path) -> None:
    """And a folder that is none is told."""
    with pytest.raises(ValueError, match="no profile 'default'"):
        profiles.load([write(tmp_path, GOOD.format(version=1))])
    with pytest.raises(settings.SettingsError, match="is not a folder"):
        load_profiles(settings.load({"HERMES2_PROFILES": str(tmp_path / "none")}))
