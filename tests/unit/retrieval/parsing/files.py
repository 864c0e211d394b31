"""Files of each kind, made by the libraries that others make them with, and bombs made by hand."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import docx
import fpdf
import openpyxl
import pptx
import pypdf
from pptx.util import Inches

SENTENCE = "The harbour gate of Vellin opens at seven."


def pdf(*pages: str) -> bytes:
    book = fpdf.FPDF()
    book.set_font("Helvetica", size=12)
    for page in pages:
        book.add_page()
        if page:
            book.multi_cell(0, text=page)
    return bytes(book.output())


def encrypted_pdf(password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(SENTENCE)))
    writer.encrypt(user_password=password, owner_password="owner", algorithm="RC4-128")
    return saved(writer.write)


def word() -> bytes:
    book = docx.Document()
    book.add_heading("Vellin", 1)
    book.add_paragraph(SENTENCE)
    table = book.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "lantern", "12"
    book.add_paragraph("The end.")
    return saved(book.save)


def slides() -> bytes:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Vellin"
    slide.shapes.add_textbox(0, 0, Inches(1), Inches(1)).text_frame.text = SENTENCE
    table = slide.shapes.add_table(1, 2, 0, 0, Inches(1), Inches(1)).table
    table.cell(0, 0).text, table.cell(0, 1).text = "lantern", "12"
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    return saved(show.save)


def sheets() -> bytes:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Prices"
    sheet.append(["item", "price"])
    sheet.append(["lantern", 12])
    sheet.append([None, None, "far"])
    book.create_sheet("Empty")
    return saved(book.save)


def saved(save: object) -> bytes:
    buffer = io.BytesIO()
    save(buffer)  # type: ignore[operator]  # the `save` of each library
    return buffer.getvalue()


def container(parts: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, body in parts.items():
            target.writestr(name, body)
    return buffer.getvalue()


def with_part(whole: bytes, name: str, body: bytes) -> bytes:
    """A container with one part put in anew."""
    with zipfile.ZipFile(io.BytesIO(whole)) as source:
        parts = {each: source.read(each) for each in source.namelist()}
    return container(parts | {name: body})


def entity_bomb() -> bytes:
    """A billion laughs in a Word file."""
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    body = f'<?xml version="1.0"?><!DOCTYPE d [<!ENTITY l0 "lol">{entities}]><d>&l9;</d>'
    return with_part(word(), "word/document.xml", body.encode())


def zip_bomb() -> bytes:
    """600 MB of zeros as a part of a Word file, in 600 kB."""
    buffer = io.BytesIO(word())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as target, target.open("word/media/zeros.bin", "w") as part:
        for _ in range(600):
            part.write(bytes(2**20))
    return buffer.getvalue()


def lying_bomb() -> bytes:
    """A part of 300 MB that says that it has 1000 bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("[Content_Types].xml", b"<Types/>")
        with target.open("word/document.xml", "w") as part:
            for _ in range(300):
                part.write(b" " * 2**20)
    said, true = (1000).to_bytes(4, "little"), (300 * 2**20).to_bytes(4, "little")
    return buffer.getvalue().replace(true, said)


def nested(depth: int) -> bytes:
    """An archive in an archive in an archive: nothing here ever opens the inner ones."""
    body = b"x" * 1000
    for _ in range(depth):
        body = container({"inner.zip": body})
    return body
