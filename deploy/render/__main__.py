"""`python -m deploy.render`: writes the deployment files. `--check` writes nothing and names those that are not current."""

from __future__ import annotations

import sys

from deploy.render.files import rendered
from frontend.settings import ROOT


def main(arguments: list[str]) -> int:
    stale = {path: text for path, text in rendered().items() if not path.exists() or path.read_text() != text}
    if "--check" in arguments:
        for path in stale:
            print(f"not what `make deployment` writes: {path.relative_to(ROOT)}", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
