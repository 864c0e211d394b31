"""What a file is, told by its content, and by its name only where the content does not tell."""

from __future__ import annotations

import zipfile
from pathlib import PurePath
from typing import BinaryIO, Literal

from retrieval.parsing.unreadable import invalid, unsupported

Kind = Literal["text", "html", "json", "pdf", "docx", "pptx", "xlsx"]

HEAD_BYTES = 8192
MAIN_PARTS: dict[str, Kind] = {
    "word/document.xml": "docx",
    "ppt/presentation.xml": "pptx",
    "xl/workbook.xml": "xlsx",
}
OFFICE: dict[str, Kind] = {
    ".docx": "docx", ".docm": "docx", ".pptx": "pptx", ".pptm": "pptx", ".xlsx": "xlsx", ".xlsm": "xlsx",
}  # fmt: skip
HTML = frozenset((".html", ".htm", ".xhtml"))
LABELS: dict[Kind, str] = {
    "text": "text", "html": "HTML", "json": "JSON", "pdf": "PDF",
    "docx": "Word", "pptx": "PowerPoint", "xlsx": "Excel",
}  # fmt: skip
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""Word, Excel and PowerPoint before 2007; and newer ones that are encrypted."""
WIDE_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")
"""A text that begins so may well have zero bytes: UTF-16 and UTF-32."""
FOREIGN = {
    b"\x89PNG": "a picture", b"\xff\xd8\xff": "a picture", b"GIF8": "a picture", b"{\\rtf": "RTF",
    b"\x1f\x8b": "a gzip archive", b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive", b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive", b"(\xb5/\xfd": "a zstd archive", b"\x7fELF": "a program", b"SQLite format 3": "a database",
    b"%!PS": "PostScript",
}  # fmt: skip
SUPPORTED = "Text, Markdown, HTML, PDF, docx, pptx, xlsx, CSV, JSON and source code can be read."


def suffix_of(filename: str) -> str:
    """In lower case, with its dot; "" for none."""
    return PurePath(filename).suffix.lower()


def kind_of(file: BinaryIO, suffix: str) -> Kind:
    """`file`: seekable; its position afterwards means nothing. Raises Unreadable."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if not head:
        raise invalid("The file is empty.")
    if b"%PDF-" in head[:1024]:
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _office_kind(file)
    if head.startswith(OLE):
        if suffix in OFFICE:
            raise invalid("The file is encrypted: please save it without a password.")
        raise unsupported("Office files from before 2007 are not read: please save it as docx, xlsx or pptx.")
    if suffix == ".pdf" or suffix in OFFICE:
        raise invalid(f"The file is broken, or something else than its name says: {suffix[1:]} does not begin so.")
    return _text_kind(head, suffix)


def _text_kind(head: bytes, suffix: str) -> Kind:
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise unsupported(f"The file is {what}. {SUPPORTED}")
    if b"\0" in head and not head.startswith(WIDE_BOMS):
        raise unsupported(f"The file is not text. {SUPPORTED}")
    if suffix == ".json":
        return "json"
    begins_so = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith((b"<!doctype html", b"<html"))
    return "html" if suffix in HTML or (not suffix and begins_so) else "text"


def _office_kind(file: BinaryIO) -> Kind:
    try:
        with zipfile.ZipFile(file) as container:
            names = set(container.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as exc:
        raise invalid("The file is broken: it begins as a zip container, and cannot be opened as one.") from exc
    for name, kind in MAIN_PARTS.items():
        if name in names:
            return kind
    raise unsupported(f"The file is an archive, or of a kind that is not read here. {SUPPORTED}")
