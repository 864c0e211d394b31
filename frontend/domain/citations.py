"""What of a document an answer rests on, as it is told to clients."""

from __future__ import annotations

import msgspec


class FileCitation(msgspec.Struct, frozen=True, tag_field="type", tag="file_citation"):
    file_id: str
    filename: str
    index: int
    """Of a character in the text that cites, from 0 on: the `[` of a marker, or the last one of a sentence."""
