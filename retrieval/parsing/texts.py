"""Files that are text already, as far as their bytes can be told: which encoding, how long, and without what no text has."""

from __future__ import annotations

import codecs
import json
import re
from typing import BinaryIO

from retrieval.parsing.unreadable import Unreadable, invalid, unsupported

BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WIDEST_BYTES = 4
"""Of one character, in any encoding that is read here: more bytes than that are more characters than allowed."""
SAMPLE_BYTES = 65_536
"""As much is looked at to guess an encoding."""
DECLARED = re.compile(
    rb"""<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9._:-]{1,40})""", re.IGNORECASE
)
CONTROLS = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff\ufeff\ufffe\uffff]")
"""No text needs them; PostgreSQL keeps no zero byte, and UTF-8 knows no half of a character."""
MOST_CONTROLS, FEW_CONTROLS = 0.02, 8
"""A decoded file with a greater share of control characters, and more than a few, is not text."""


def too_long(max_chars: int) -> Unreadable:
    return invalid(f"The file has more than {max_chars} characters of text. Please split it.")


def read(file: BinaryIO, max_chars: int) -> str:
    """The whole file. Raises Unreadable if it is longer, or not text."""
    file.seek(0)
    body = file.read(max_chars * WIDEST_BYTES + WIDEST_BYTES + 1)
    if len(body) > max_chars * WIDEST_BYTES + WIDEST_BYTES:
        raise too_long(max_chars)
    text = decode(body)
    if len(text) > max_chars:
        raise too_long(max_chars)
    return text


def decode(body: bytes) -> str:
    """By its mark (BOM), as UTF-8, as it says itself (HTML, XML), or as is likely. Raises Unreadable."""
    for mark, encoding in BOMS:
        if body.startswith(mark):
            return _exactly(body[len(mark) :], encoding)
    try:
        return _checked(body.decode())
    except UnicodeDecodeError:
        return _checked(_exactly(body, _declared(body) or _likely(body)))


def _exactly(body: bytes, encoding: str) -> str:
    try:
        return body.decode(encoding)
    except UnicodeDecodeError as exc:
        raise invalid(f"The text is not {encoding} throughout, as it seemed: please save it as UTF-8.") from exc


def _declared(body: bytes) -> str | None:
    if match := DECLARED.search(body[:2048]):
        try:
            name = codecs.lookup(match[1].decode()).name
        except LookupError:
            return None
        return name if name not in ("utf-8", "utf-16", "utf-32") else None  # it is not, or would have its mark
    return None


def _likely(body: bytes) -> str:
    from charset_normalizer import from_bytes  # 20 ms that UTF-8 does not need

    sample = body[:SAMPLE_BYTES]
    if len(body) > SAMPLE_BYTES and (end := sample.rfind(b"\n")) > 0:
        sample = sample[:end]  # not in the middle of a character
    best = from_bytes(sample).best()
    if best is None:
        raise unsupported("The file is not text, or in an encoding that cannot be told: please save it as UTF-8.")
    return best.encoding


def _checked(text: str) -> str:
    sample = text[:SAMPLE_BYTES]
    if len(CONTROLS.findall(sample)) > max(len(sample) * MOST_CONTROLS, FEW_CONTROLS):
        raise unsupported("The file is not text.")
    return text


def cleaned(text: str) -> str:
    """With line feeds for line ends, and without control characters."""
    return CONTROLS.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def from_json(text: str, max_chars: int) -> str:
    """Laid out in lines, with its characters as they are read instead of as escapes; as it stands if it is no JSON."""
    try:
        laid_out = json.dumps(json.loads(text), ensure_ascii=False, indent=1)
    except (ValueError, RecursionError):
        return text
    return laid_out if len(laid_out) <= max_chars else text
