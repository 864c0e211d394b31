"""The settings tree as a page of documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

from frontend import settings
from frontend.settings import ROOT, ByteSize, Group, Leaf, Settings

HEAD = """# Configuration

Every setting has an environment variable; a TOML file named by `HERMES2_CONFIG` may hold the same tree, and the
environment wins. A wrong value is refused at start with its path; a variable that looks like a setting and is none is
reported. Sizes are written `30GB` (powers of ten) or `512MiB` (powers of two). This page is written by
`make docs` from `frontend/settings.py`.

```toml
# hermes2.toml, used with HERMES2_CONFIG=hermes2.toml
port = 11401
memory_limit = "30GB"

[engine]
max_num_seqs = 32
```
"""


def page() -> str:
    """docs/configuration.md."""
    sections = [HEAD, table("The service", [leaf for leaf in settings.leaves() if "." not in leaf.path])]
    for name, group in groups():
        leaves = [leaf for leaf in settings.leaves() if leaf.path.startswith(f"{name}.")]
        sections.append(table(f"`{name}`: {(group.__doc__ or '').strip()}", leaves))
    return "\n".join(sections)


def groups() -> list[tuple[str, type[Group]]]:
    found = {leaf.path.split(".")[0] for leaf in settings.leaves() if "." in leaf.path}
    hints = get_type_hints(Settings)
    return [(name, hints[name]) for name in Settings.__struct_fields__ if name in found]


def table(title: str, leaves: list[Leaf]) -> str:
    rows = [f"| `{leaf.path}` | `{leaf.variable}` | {value(leaf.default)} | {meaning(leaf)} |" for leaf in leaves]
    return "\n".join([f"## {title}", "", "| setting | variable | default | meaning |", "|---|---|---|---|", *rows, ""])


def value(default: object) -> str:
    if default is None:
        return "unset"
    if isinstance(default, ByteSize):
        return f"`{size(default)}`"
    if isinstance(default, Path):
        return f"`{default.relative_to(ROOT)}` in the repository"
    return f"`{json.dumps(default) if not isinstance(default, str) else default}`"


def size(amount: ByteSize) -> str:
    for unit in ("GB", "MB", "GiB", "MiB"):
        if amount % settings.UNITS[unit.upper()] == 0:
            return f"{amount // settings.UNITS[unit.upper()]}{unit}"
    return str(int(amount))


def meaning(leaf: Leaf) -> str:
    """The description, and what is allowed."""
    kind: Any = get_args(leaf.annotation)[0]
    metas = leaf.annotation.__metadata__
    text = str(next(meta.description for meta in metas if getattr(meta, "description", None)))
    bounds = [
        f"{sign} {limit:g}"
        for meta in metas
        for name, sign in BOUNDS
        if (limit := getattr(meta, name, None)) is not None
    ]
    kinds = [kind, *get_args(kind)]  # itself, and the members of a union: what may be unset
    choices = [f"`{choice}`" for each in kinds for choice in get_args(each) if isinstance(choice, str)]
    allowed = ", ".join(choices or bounds)
    return f"{text} ({allowed})" if allowed else text


BOUNDS = (("ge", "≥"), ("gt", ">"), ("le", "≤"))
