"""Templates to texts: deploy/templates/PATH is written to deploy/PATH."""

from __future__ import annotations

from pathlib import Path

import jinja2

from deploy.render.values import cores, values
from frontend.settings import ROOT, Settings

TEMPLATES = ROOT / "deploy/templates"


def rendered(settings: Settings | None = None) -> dict[Path, str]:
    """Every deployment file and what it has to say. Raises SharesError, jinja2.UndefinedError."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701  # no page: YAML, a unit and a Dockerfile
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cores"] = cores
    known = values(settings)
    names = sorted(path.relative_to(TEMPLATES) for path in TEMPLATES.rglob("*") if path.is_file())
    return {ROOT / "deploy" / name: environment.get_template(str(name)).render(known) for name in names}
