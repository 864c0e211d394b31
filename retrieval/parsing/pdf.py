"""PDF to text, page after page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from pypdf import PdfReader
from pypdf.errors import DependencyError, PyPdfError

from retrieval.parsing.unreadable import invalid


def pieces(file: BinaryIO) -> Iterator[str]:
    """Raises Unreadable, and whatever pypdf raises of a page that is broken."""
    file.seek(0)
    try:
        reader = PdfReader(file, strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise invalid("The PDF is encrypted: please save it without a password.")
        pages = len(reader.pages)
    except DependencyError as exc:
        raise invalid("The PDF is encrypted: please save it without encryption.") from exc
    except PyPdfError as exc:
        raise invalid("The PDF is broken: it cannot be opened.") from exc
    for number in range(pages):
        yield reader.pages[number].extract_text()
        yield "\n\n"
