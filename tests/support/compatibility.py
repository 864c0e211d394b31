"""docs/compatibility.md, from the marks of the tests that prove its rows: `python -m tests.support.compatibility`.

A test marked `@pytest.mark.compat(AREA, feature, says="yes")` is a row, or one of the tests behind a row.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs/compatibility.md"
OF_CHAT, OF_COMPLETIONS, OF_EMBEDDINGS = "Chat completions", "Completions", "Embeddings"
OF_RESPONSES, OF_CONVERSATIONS, OF_SESSIONS = "Responses", "Conversations", "Sessions"
OF_FILES, OF_VECTOR_STORES = "Files", "Vector stores"
OF_MODELS, OF_ALL = "Models", "Every route"
AREAS = (
    OF_CHAT,
    OF_COMPLETIONS,
    OF_RESPONSES,
    OF_CONVERSATIONS,
    OF_SESSIONS,
    OF_FILES,
    OF_VECTOR_STORES,
    OF_EMBEDDINGS,
    OF_MODELS,
    OF_ALL,
)
INTRODUCTION = """# Compatibility with the OpenAI API

Made by `make docs` from the marks of the tests, which `make test` runs: each row names those that prove it. What the
parameters mean and how far they go: [api.md](api.md); real clients: [clients.md](clients.md).
"""

Row = tuple[str, str, str]


class Collector:
    """A pytest plugin that takes the rows from what is collected."""

    def __init__(self) -> None:
        self.rows: dict[Row, list[str]] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("compat"):
                area, feature = mark.args
                assert area in AREAS, item.nodeid
                tests = self.rows.setdefault((area, feature, mark.kwargs.get("says", "yes")), [])
                name = f"{Path(item.nodeid.split('::')[0]).name}::{getattr(item, 'originalname', item.name)}"
                if name not in tests:
                    tests.append(name)


def page() -> str:
    """The page as the tests have it now. Raises RuntimeError if they cannot be collected."""
    collector = Collector()
    tests = PAGE.parents[1] / "tests"
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = pytest.main(
            ["--collect-only", "-q", "-p", "no:cacheprovider", "--no-cov", str(tests)], plugins=[collector]
        )
    if status != pytest.ExitCode.OK:
        raise RuntimeError(output.getvalue()[-2000:])
    parts = [INTRODUCTION]
    for area in AREAS:
        parts += [f"\n## {area}\n\n| feature | | tests |\n|---|---|---|\n"]
        for (of, feature, says), names in sorted(collector.rows.items()):
            if of == area:
                parts.append(f"| {feature} | {says} | {', '.join(f'`{name}`' for name in names)} |\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
