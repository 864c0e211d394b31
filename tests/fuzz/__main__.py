"""python -m tests.fuzz [--cases 50000] [--seed N]: generated requests against the scripted engine, until one finds something."""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.fuzz import campaign

ROUND_S = 180


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--cases", type=int, default=50_000, help="how many requests, at least")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(10**6), help="of the first round; the next is one more"
    )
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with campaign.service(Path(folder, "home")) as stack:
                tried = campaign.run_until(stack, Path(folder), arguments.seed, arguments.cases, ROUND_S, print)
        except campaign.Found as found:
            sys.exit(str(found))
    print(f"{tried} cases, nothing found")


if __name__ == "__main__":
    main()
