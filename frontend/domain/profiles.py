"""Conversation profiles: a named, versioned way of talking, chosen per request. Data, in TOML files, checked at start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from frontend.domain.errors import InvalidRequest
from frontend.domain.messages import ToolStyle

DEFAULT = "default"


class ProfileSampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults for what a request leaves unsaid."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
    version: Annotated[int, Meta(ge=1)]
    """Raised with every change: a client that pins `name@version` gets what it has tested."""
    description: str
    system: Annotated[str, Meta(max_length=16_384)] | None = None
    """A system turn before the client's own."""
    stop: Annotated[Sequence[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=4)] = ()
    """Where an answer in free text ends, beside what the request says."""
    tool_style: ToolStyle = "hermes"
    """How the model is told of its tools."""
    json_prompt: bool = True
    """Whether a request for JSON is put to the model in Hermes-2's words, beside being enforced."""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    """The longest answer, if the request does not say; unset: all that the window leaves."""
    sampling: ProfileSampling = ProfileSampling()


class Profiles:
    """All that can be chosen."""

    def __init__(self, profiles: Sequence[Profile]) -> None:
        """Raises ValueError for two of one name and version, and if there is no default."""
        ordered = sorted(profiles, key=lambda profile: (profile.name, profile.version))
        self._exact = {f"{profile.name}@{profile.version}": profile for profile in ordered}
        self._newest = {profile.name: profile for profile in ordered}
        if len(self._exact) < len(ordered):
            raise ValueError("two profiles have the same name and version")
        if DEFAULT not in self._newest:
            raise ValueError(f"there is no profile {DEFAULT!r}")

    def list(self) -> list[Profile]:
        """By name and version."""
        return list(self._exact.values())

    def get(self, wanted: str | None) -> Profile:
        """`wanted`: a name, for its newest version, or `name@version`. Raises InvalidRequest."""
        profile = self._newest.get(wanted or DEFAULT) or self._exact.get(wanted or DEFAULT)
        if profile is None:
            raise InvalidRequest(f"There is no profile {wanted!r}.", param="profile")
        return profile


def load(folders: Sequence[Path]) -> Profiles:
    """Every *.toml file in `folders` is one profile. Raises ValueError, naming the file."""
    found: list[Profile] = []
    for path in sorted(path for folder in folders for path in folder.glob("*.toml")):
        try:
            found.append(msgspec.toml.decode(path.read_bytes(), type=Profile))
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise ValueError(f"{path}: {exc}") from exc
    return Profiles(found)
