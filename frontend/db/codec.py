"""Items and events as bytes: MessagePack of the domain's tagged unions, with codecs built at import. Vectors as they are."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from frontend.domain.items import Item
from frontend.domain.responses import ResponseEvent

ZLIB_FIRST_BYTE = 0x78
"""No list of MessagePack begins with it, so that a body tells by itself whether it is compressed."""
COMPRESS_FROM_BYTES = 512
STORED_VECTOR = np.dtype("<f2")

encoder = msgspec.msgpack.Encoder()
item_decoder: msgspec.msgpack.Decoder[Item] = msgspec.msgpack.Decoder(Item)
events_decoder: msgspec.msgpack.Decoder[list[ResponseEvent]] = msgspec.msgpack.Decoder(list[ResponseEvent])


def encode_item(item: Item) -> bytes:
    return encoder.encode(item)


def decode_item(body: bytes) -> Item:
    return item_decoder.decode(body)


def encode_events(events: Sequence[ResponseEvent]) -> bytes:
    """Compressed where that makes it smaller."""
    body = encoder.encode(list(events))
    if len(body) < COMPRESS_FROM_BYTES:
        return body
    packed = zlib.compress(body, 1)
    return packed if len(packed) < len(body) else body


def decode_events(body: bytes) -> list[ResponseEvent]:
    return events_decoder.decode(zlib.decompress(body) if body[0] == ZLIB_FIRST_BYTE else body)


def encode_vectors(vectors: NDArray[np.float16], dimensions: int) -> bytes:
    """(windows, dim) float16, row by row, little-endian. Raises ValueError for vectors of another length."""
    if vectors.ndim != 2 or vectors.shape[1] != dimensions:
        raise ValueError(f"vectors of {dimensions} dimensions were expected, not {vectors.shape}")
    return np.ascontiguousarray(vectors, STORED_VECTOR).tobytes()


def decode_vectors(body: bytes, dimensions: int) -> NDArray[np.float16]:
    """(windows, dim) float16, read-only."""
    return np.frombuffer(body, STORED_VECTOR).reshape(-1, dimensions)
