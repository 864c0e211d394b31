"""How memory and CPU are divided among the parts; knows nothing of the files that say so."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from frontend.settings import ROOT, Settings

FILE = ROOT / "deploy/shares.toml"


class SharesError(Exception):
    """The parts do not fit into the whole."""


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    memory_mib: int
    cpu_milli: int
    """Thousandths of a core."""

    def __add__(self, other: Share) -> Share:
        return Share(memory_mib=self.memory_mib + other.memory_mib, cpu_milli=self.cpu_milli + other.cpu_milli)

    def __sub__(self, other: Share) -> Share:
        return Share(memory_mib=self.memory_mib - other.memory_mib, cpu_milli=self.cpu_milli - other.cpu_milli)


class EngineLeast(Share, frozen=True, kw_only=True, forbid_unknown_fields=True):
    shared_memory_mib: int


class Scaling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    least: int
    most: int
    queue_time_s: float


class Shares(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """deploy/shares.toml."""

    model: str
    images: Mapping[str, str]
    ports: Mapping[str, int]
    users: Mapping[str, str]
    parts: Mapping[str, Share]
    engine: EngineLeast
    beside: Mapping[str, Share]
    scaling: Scaling


def read(file: Path = FILE) -> Shares:
    return msgspec.convert(tomllib.loads(file.read_text()), Shares)


def whole(settings: Settings) -> Share:
    """The limit of the kernel: as many GiB as memory_limit has GB, so that the launcher's own budget acts first."""
    return Share(memory_mib=int(settings.memory_limit) // 10**9 * 1024, cpu_milli=settings.cpus * 1000)


def divide(shares: Shares, settings: Settings, names: tuple[str, ...]) -> dict[str, Share]:
    """The shares of the parts `names`, and of `engine`, which gets the rest. Raises SharesError if that is too little."""
    parts = {name: shares.parts[name] for name in names}
    rest = whole(settings)
    for part in parts.values():
        rest -= part
    least = shares.engine
    if rest.memory_mib < least.memory_mib or rest.cpu_milli < least.cpu_milli:
        raise SharesError(
            f"deploy/shares.toml: {', '.join(names)} leave the engine {rest.memory_mib} MiB and {rest.cpu_milli} thousandths"
            f" of a core; it needs {least.memory_mib} and {least.cpu_milli}"
        )
    return {"engine": rest, **parts}
