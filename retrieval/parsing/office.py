"""Word, PowerPoint and Excel (since 2007) to text: paragraphs, tables, slides with their notes, sheets row by row."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from retrieval.parsing.unreadable import invalid

MOST_PARTS = 20_000
XML_HEAD_BYTES = 4096
CELL = " | "


def check_container(file: BinaryIO, max_unpacked_bytes: int) -> None:
    """Raises Unreadable before anything is unpacked. No part yields more than its entry says: zipfile stops there."""
    with zipfile.ZipFile(file) as container:
        entries = container.infolist()
        if len(entries) > MOST_PARTS:
            raise invalid(f"The file has more than {MOST_PARTS} parts.")
        if sum(entry.file_size for entry in entries) > max_unpacked_bytes:
            raise invalid(f"The file is larger than {max_unpacked_bytes >> 20} MiB when it is unpacked.")
        for entry in entries:
            if entry.flag_bits & 1:
                raise invalid("The file is encrypted: please save it without a password.")
            if entry.filename.endswith((".xml", ".rels")):
                _refuse_entities(container, entry)


def _refuse_entities(container: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """No office program writes them; they are how a small file becomes a large one, or reads another."""
    with container.open(entry) as part:
        head = part.read(XML_HEAD_BYTES).replace(b"\0", b"")  # UTF-16 as well
    if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
        raise invalid("The file declares XML entities, which no office program writes.")


def docx_pieces(file: BinaryIO) -> Iterator[str]:
    from docx import Document
    from docx.table import Table

    def blocks(items: Iterable[object]) -> Iterator[str]:
        for item in items:
            if isinstance(item, Table):
                yield from table(item)
            else:
                yield f"{getattr(item, 'text', '')}\n"

    def table(item: Table) -> Iterator[str]:
        for row in item.rows:
            cells = dict.fromkeys(row.cells)  # one that spans columns comes once for each
            yield CELL.join("".join(blocks(cell.iter_inner_content())).strip() for cell in cells) + "\n"

    yield from blocks(Document(file).iter_inner_content())


def pptx_pieces(file: BinaryIO) -> Iterator[str]:
    from pptx import Presentation

    for slide in Presentation(file).slides:
        yield from _shapes(slide.shapes)
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
            yield f"{notes.text}\n"
        yield "\n"


def _shapes(shapes: Iterable[object]) -> Iterator[str]:
    for shape in shapes:
        if (inner := getattr(shape, "shapes", None)) is not None:
            yield from _shapes(inner)
        elif getattr(shape, "has_table", False):
            for row in shape.table.rows:  # type: ignore[attr-defined]  # pptx has no types
                yield CELL.join(cell.text for cell in row.cells) + "\n"
        elif getattr(shape, "has_text_frame", False):
            yield f"{shape.text_frame.text}\n"  # type: ignore[attr-defined]


def xlsx_pieces(file: BinaryIO) -> Iterator[str]:
    from openpyxl import load_workbook
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

    book = load_workbook(file, read_only=True, data_only=True)
    for sheet in book.worksheets:
        assert isinstance(sheet, ReadOnlyWorksheet)
        sheet.reset_dimensions()  # a sheet that claims a million columns would be filled up to them
        yield f"{sheet.title}\n"
        for row in sheet.iter_rows(values_only=True):
            if any(value is not None for value in row):
                yield CELL.join("" if value is None else str(value) for value in row).rstrip(CELL) + "\n"
        yield "\n"
