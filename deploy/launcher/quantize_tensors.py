"""Tensors of safetensors files as float32 and back; numpy alone has no bfloat16."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Tensor = tuple[str, tuple[int, ...], bytes]
"""Type in safetensors' words, shape, and the bytes in order of rows."""


PLAIN = {"F16": np.float16, "F32": np.float32, "I8": np.int8}


class Checkpoint:
    """All tensors of a folder's *.safetensors, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self._maps: list[mmap.mmap] = []
        self._tensors: dict[str, tuple[memoryview, str, tuple[int, ...]]] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._maps.append(mapped)
            start = 8 + int.from_bytes(mapped[:8], "little")
            for name, entry in header(mapped).items():
                begin, end = entry["data_offsets"]
                content = memoryview(mapped)[start + begin : start + end]
                self._tensors[name] = content, entry["dtype"], tuple(entry["shape"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for content, _, _ in self._tensors.values():
            content.release()
        for mapped in self._maps:
            mapped.close()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def read(self, name: str) -> Array:
        """A copy in float32. Raises KeyError, or ValueError for a type that is not known."""
        content, dtype, shape = self._tensors[name]
        if dtype == "BF16":
            high = np.frombuffer(content, np.uint16).astype(np.uint32)
            return (high << np.uint32(16)).view(np.float32).reshape(shape)
        if dtype not in PLAIN:
            raise ValueError(f"{name} is stored as {dtype}")
        return np.frombuffer(content, PLAIN[dtype]).astype(np.float32).reshape(shape)


def header(content: bytes | mmap.mmap) -> dict[str, Any]:
    """Type, shape and place of each tensor of a safetensors file."""
    found: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    found.pop("__metadata__", None)
    return found


def bfloat16(values: Array) -> Tensor:
    return "BF16", values.shape, (as_bfloat16(values).view(np.uint32) >> np.uint32(16)).astype(np.uint16).tobytes()


def as_bfloat16(values: Array) -> Array:
    """The nearest numbers that bfloat16 has, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return nearest.view(np.float32)


def float32(values: Array) -> Tensor:
    return "F32", values.shape, np.ascontiguousarray(values, np.float32).tobytes()


def int8(values: NDArray[np.int8]) -> Tensor:
    return "I8", values.shape, values.tobytes()


def write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, its tensors in the order of the mapping."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, content) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": (at, at + len(content))}
        at += len(content)
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, content in tensors.values():
            file.write(content)
