"""One file to its text, in this process. Imports what the file's kind needs, and nothing else: a process is started for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from retrieval.parsing import texts
from retrieval.parsing.kinds import LABELS, Kind, kind_of
from retrieval.parsing.limits import Limits
from retrieval.parsing.unreadable import Unreadable, invalid


def text_of(file: BinaryIO, suffix: str, limits: Limits) -> str:
    """`suffix`: of its name, in lower case, with the dot. Raises Unreadable, MemoryError."""
    kind = kind_of(file, suffix)
    try:
        text = texts.cleaned(_text(file, kind, limits))
    except (Unreadable, MemoryError, ImportError):
        raise
    except Exception as exc:  # what a reader raises of a broken file is anything
        raise invalid(f"The {LABELS[kind]} file is broken: it cannot be read ({type(exc).__name__}).") from exc
    if not text.strip():
        hint = " It may be a scan: pictures of text are not read." if kind == "pdf" else ""
        raise invalid(f"No text was found in the file.{hint}")
    return text


def _text(file: BinaryIO, kind: Kind, limits: Limits) -> str:
    if kind in ("text", "html", "json"):
        text = texts.read(file, limits.max_chars)
        if kind == "html":
            from retrieval.parsing.html import to_text

            return to_text(text)
        return texts.from_json(text, limits.max_chars) if kind == "json" else text
    return _joined(_pieces(file, kind, limits), limits.max_chars)


def _pieces(file: BinaryIO, kind: Kind, limits: Limits) -> Iterator[str]:
    if kind == "pdf":
        from retrieval.parsing import pdf

        return pdf.pieces(file)
    from retrieval.parsing import office

    office.check_container(file, limits.max_unpacked_bytes)
    readers = {"docx": office.docx_pieces, "pptx": office.pptx_pieces, "xlsx": office.xlsx_pieces}
    return readers[kind](file)


def _joined(pieces: Iterator[str], max_chars: int) -> str:
    """Raises Unreadable as soon as they are too long together."""
    kept, total = [], 0
    for piece in pieces:
        total += len(piece)
        if total > max_chars:
            raise texts.too_long(max_chars)
        kept.append(piece)
    return "".join(kept)
