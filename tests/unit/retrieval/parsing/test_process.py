"""Every kind of file to its text, and every kind of harm to a reason, in the process that the service starts for it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from retrieval.parsing.limits import Limits
from retrieval.parsing.process import ENVIRONMENT, ROOT, ProcessParser
from retrieval.parsing.unreadable import Unreadable
from tests.unit.retrieval.parsing import files

LIMITS = Limits(max_chars=100_000, memory_bytes=2**30, timeout_s=60)
SENTENCE = files.SENTENCE


async def parse(folder: Path, name: str, body: bytes | str, limits: Limits = LIMITS) -> str:
    path = folder / "file"
    path.write_bytes(body.encode() if isinstance(body, str) else body)
    return await ProcessParser(limits).parse(name, path)


async def failure(folder: Path, name: str, body: bytes | str, limits: Limits = LIMITS) -> tuple[str, str]:
    with pytest.raises(Unreadable) as caught:
        await parse(folder, name, body, limits)
    return caught.value.code, caught.value.message


@pytest.mark.parametrize(
    ("name", "body", "text"),
    [
        ("a.txt", "Grüße\r\naus Vellin\x07\x7f", "Grüße\naus Vellin"),
        ("notes", "no suffix at all", "no suffix at all"),
        ("a.md", "# Vellin\n\n<b>stays</b>", "# Vellin\n\n<b>stays</b>"),
        ("a.py", "print('<html>')", "print('<html>')"),
        ("a.csv", "item;price\nlantern;12\n", "item;price\nlantern;12\n"),
        ("a.json", '{"gate":"caf\\u00e9","half":"\\ud800"}', '{\n "gate": "café",\n "half": ""\n}'),
        ("a.json", '{"cut": ', '{"cut": '),
        ("a.json", "[" * 50_000, "[" * 50_000),
        ("a.docx", files.word(), f"Vellin\n{SENTENCE}\nlantern | 12\nThe end.\n"),
        ("a.pptx", files.slides(), f"Vellin\n{SENTENCE}\nlantern | 12\nSay it slowly.\n\n"),
        ("a.xlsx", files.sheets(), "Prices\nitem | price\nlantern | 12\n |  | far\n\nEmpty\n\n"),
        ("a.pdf", files.pdf("One page.", "And another."), "One page.\n\nAnd another.\n\n"),
        ("wrong-name.txt", files.pdf("A PDF."), "A PDF.\n\n"),
        ("wrong-name.pdf", files.word(), f"Vellin\n{SENTENCE}\nlantern | 12\nThe end.\n"),
        ("open.pdf", files.encrypted_pdf(""), f"{SENTENCE}\n\n"),
    ],
)
async def test_kinds(tmp_path: Path, name: str, body: bytes | str, text: str) -> None:
    """What a file is tells its content; the text is all of it, in the order of reading, without control characters."""
    assert await parse(tmp_path, name, body) == text


async def test_html(tmp_path: Path) -> None:
    """What a reader sees: the title, blocks on lines of their own, cells apart; no scripts, and deep nesting does no harm."""
    page = (
        "<!doctype html><title>Vellin</title><script>var x = 1</script><style>p {}</style>"
        f"<h1>The  gate</h1><p>{SENTENCE[:20]}<b>{SENTENCE[20:]}</b></p><!-- not this -->"
        "<table><tr><td>lantern<td>12</table><pre>a\n  b</pre>caf&eacute; &amp; more"
    )
    expected = f"Vellin\n\nThe gate\n\n{SENTENCE}\n\nlantern | 12\n\na\nb\ncafé & more"
    assert await parse(tmp_path, "a.html", page) == expected
    assert await parse(tmp_path, "page", page) == expected
    assert "deep" in await parse(tmp_path, "a.html", "<div>" * 1500 + "deep")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8-sig", SENTENCE),
        ("utf-16", "Grüße aus Vellin"),
        ("utf-32", "Grüße aus Vellin"),
        ("cp1252", "Der Müller grüßt die Bäckerin, und sie erwidert seinen Gruß auf der Straße vor dem Café. " * 3),
        ("cp1251", "Ворота гавани открываются в семь часов утра и закрываются в девять часов вечера. " * 3),
        ("shift_jis", "港の門は朝七時に開き、夜九時に閉まります。灯台は岬の上に立っています。" * 3),
    ],
)
async def test_encodings(tmp_path: Path, encoding: str, text: str) -> None:
    """A mark is believed, then UTF-8 is tried, then what is likely is taken."""
    assert await parse(tmp_path, "a.txt", text.encode(encoding)) == text


async def test_a_page_names_its_encoding(tmp_path: Path) -> None:
    """An old page that is not UTF-8 is read as it says."""
    page = '<html><meta charset="windows-1253"><p>η πύλη</p></html>'.encode("cp1253")
    assert await parse(tmp_path, "a.html", page) == "η πύλη"


@pytest.mark.parametrize(
    ("name", "body", "code", "words"),
    [
        ("a.txt", b"", "invalid_file", "is empty"),
        ("a.txt", b" \n\t\n", "invalid_file", "No text"),
        ("a.pdf", files.pdf(""), "invalid_file", "scan"),
        ("a.pdf", b"%PDF-1.7\nnothing else", "invalid_file", "broken"),
        ("a.pdf", files.pdf(SENTENCE)[:700], "invalid_file", "broken"),
        ("a.pdf", files.encrypted_pdf("secret"), "invalid_file", "encrypted"),
        ("a.pdf", "no PDF", "invalid_file", "name says"),
        ("a.docx", "no zip", "invalid_file", "name says"),
        ("a.docx", files.word()[:3000], "invalid_file", "broken"),
        ("a.docx", files.with_part(files.word(), "word/document.xml", b"<w:doc"), "invalid_file", "broken"),
        ("a.docx", files.entity_bomb(), "invalid_file", "entities"),
        ("a.docx", files.zip_bomb(), "invalid_file", "unpacked"),
        ("a.docx", files.lying_bomb(), "invalid_file", "broken"),
        ("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "invalid_file", "encrypted"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "unsupported_file", "docx"),
        ("a.zip", files.nested(50), "unsupported_file", "archive"),
        ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(50), "unsupported_file", "picture"),
        ("a.txt", b"abc\0\0def", "unsupported_file", "not text"),
        ("a.txt", bytes(range(128, 256)) * 20, "unsupported_file", "encoding"),
        ("a.txt", b"\xff\xfea", "invalid_file", "utf-16"),
        ("a.txt", "x" * 100_001, "invalid_file", "more than 100000"),
        ("a.html", "<p>" + "x" * 500_000, "invalid_file", "more than 100000"),
    ],
)
async def test_harm(tmp_path: Path, name: str, body: bytes | str, code: str, words: str) -> None:
    """Each is refused with the code and a reason that its owner can act on, and long before the deadline."""
    started = time.monotonic()
    found = await failure(tmp_path, name, body)
    assert found[0] == code
    assert words in found[1]
    assert time.monotonic() - started < 20


async def test_a_gigabyte(tmp_path: Path) -> None:
    """Of zeros, and of text: refused after a look at its beginning, not read."""
    for head, code in ((b"", "unsupported_file"), (b"a" * 10_000, "invalid_file")):
        with (tmp_path / "huge.txt").open("wb") as file:
            file.write(head)
            file.truncate(2**30)
        with pytest.raises(Unreadable) as caught:
            await ProcessParser(LIMITS).parse("huge.txt", tmp_path / "huge.txt")
        assert caught.value.code == code


async def test_too_much_memory(tmp_path: Path) -> None:
    """Who needs more than it may have fails alone."""
    small = msgspec.structs.replace(LIMITS, memory_bytes=200 * 2**20, max_chars=50_000_000)
    code, message = await failure(tmp_path, "a.json", "[" + "{}," * 5_000_000 + "{}]", small)
    assert code == "invalid_file"
    assert "memory" in message or "SIG" in message


async def test_too_slow(tmp_path: Path) -> None:
    """A workbook that is large when unpacked, and only then, ends at the deadline, and its process with it."""
    rows = b"".join(b'<row r="%d"><c r="XFD%d"><v>1</v></c></row>' % (n, n) for n in range(1, 20_000))
    sheet = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData></worksheet>'
    book = files.with_part(files.sheets(), "xl/worksheets/sheet1.xml", sheet % rows)
    quick = msgspec.structs.replace(LIMITS, timeout_s=2, max_chars=10**9)
    code, message = await failure(tmp_path, "a.xlsx", book, quick)
    assert (code, "longer than 2 seconds" in message) == ("invalid_file", True)
    assert not readers(os.getpid())


async def test_a_cancelled_reader_is_gone(tmp_path: Path) -> None:
    """Who does not wait any more leaves no process behind."""
    fifo = tmp_path / "slow"
    fifo.write_bytes(b"[" + b"1," * 20_000_000 + b"1]")
    limits = msgspec.structs.replace(LIMITS, max_chars=10**8)
    task = asyncio.create_task(ProcessParser(limits).parse("a.json", fifo))
    while not readers(os.getpid()):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not readers(os.getpid())


async def test_no_reader_outlives_the_service(tmp_path: Path) -> None:
    """kill -9 of the process that asked for a text ends the process that reads it."""
    (tmp_path / "a.json").write_bytes(b"[" + b"1," * 20_000_000 + b"1]")
    limits = msgspec.structs.replace(LIMITS, max_chars=10**8)
    program = (
        "import asyncio, msgspec, pathlib, sys\n"
        "from retrieval.parsing.limits import Limits\n"
        "from retrieval.parsing.process import ProcessParser\n"
        "parser = ProcessParser(msgspec.json.decode(sys.argv[1], type=Limits))\n"
        "asyncio.run(parser.parse('a.json', pathlib.Path(sys.argv[2])))\n"
    )
    arguments = [sys.executable, "-c", program, msgspec.json.encode(limits).decode(), str(tmp_path / "a.json")]
    with subprocess.Popen(arguments, cwd=ROOT) as service:  # noqa: ASYNC220
        while not (found := readers(service.pid)):
            await asyncio.sleep(0.01)
        service.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(found, timeout=5)
    assert (len(gone), alive) == (1, [])


async def test_a_reader_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is made for it; the service's own, with its keys, is not there."""
    monkeypatch.setenv("HERMES2_API_KEY", "secret-of-the-service")
    (tmp_path / "a.json").write_bytes(b"[" + b"1," * 5_000_000 + b"1]")
    limits = msgspec.structs.replace(LIMITS, max_chars=10**8)
    task = asyncio.create_task(ProcessParser(limits).parse("a.json", tmp_path / "a.json"))
    while not (found := readers(os.getpid())):
        await asyncio.sleep(0.01)
    environment = found[0].environ()
    assert {name for name in environment if name not in ENVIRONMENT} <= {"LC_CTYPE"}
    assert json.loads(await task)[-1] == 1


def readers(parent: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(parent).children(recursive=True):
        try:
            if "retrieval.parsing.child" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found
