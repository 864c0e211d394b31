"""HTML to the text that a reader of the page sees."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from retrieval.parsing.unreadable import invalid

SILENT = frozenset(
    ("script", "style", "noscript", "template", "svg", "math", "iframe", "object", "select", "button", "head")
)
BLOCK_NAMES = """
    address article aside blockquote br caption dd div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6
    header hr li main nav ol p pre section table tbody tfoot thead tr ul
"""
BLOCKS = frozenset(BLOCK_NAMES.split())
CELLS = frozenset(("td", "th"))
SPACES = re.compile(r"[ \t\f\v\u00a0]*\n[ \t\f\v\u00a0]*")


def to_text(page: str) -> str:
    parser = etree.HTMLParser(
        encoding="utf-8", recover=True, no_network=True, remove_comments=True, remove_pis=True, huge_tree=True
    )
    root = etree.fromstring(page.encode("utf-8", "replace"), parser)
    if root is None:
        raise invalid("The file has no HTML that can be read.")
    title = root.findtext("head/title") or ""
    text = "".join((title, "\n", *pieces(root)))
    return re.sub(r"\n{3,}", "\n\n", SPACES.sub("\n", text)).strip()


def pieces(root: etree._Element) -> Iterator[str]:
    """Without recursion: a page may be nested as deep as it likes."""
    silent = 0
    pre = 0
    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = element.tag
        if event == "start":
            silent += tag in SILENT
            pre += tag == "pre"
            if silent:
                continue
            yield "\n" if tag in BLOCKS else ""
            yield flowing(element.text, pre > 0)
        else:
            silent -= tag in SILENT
            pre -= tag == "pre"
            if silent:
                continue
            yield "\n" if tag in BLOCKS else " | " if tag in CELLS and element.getnext() is not None else ""
            yield flowing(element.tail, pre > 0)


def flowing(text: str | None, as_it_stands: bool) -> str:
    if not text or as_it_stands:
        return text or ""
    return re.sub(r"\s+", " ", text)
