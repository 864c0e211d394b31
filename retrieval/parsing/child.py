"""The process that reads one file: `python -m retrieval.parsing.child SUFFIX LIMITS PARENT`.

The file is its standard input; what it finds goes to standard output: one line of JSON, then the text in UTF-8.
"""

from __future__ import annotations

import os
import sys

import msgspec

from retrieval.parsing.limits import Limits, confine, die_with_parent
from retrieval.parsing.unreadable import Reason, Unreadable


class Found(msgspec.Struct, frozen=True):
    """The first line. `code` and `message` are those of Unreadable; None if there is a text."""

    code: Reason | None = None
    message: str = ""


def main(suffix: str, limits: Limits) -> None:
    found, text = Found(), ""
    try:
        from retrieval.parsing.extract import text_of

        with os.fdopen(0, "rb") as file:
            text = text_of(file, suffix, limits)
    except Unreadable as exc:
        found = Found(exc.code, exc.message)
    except MemoryError:
        found = Found("invalid_file", f"Reading the file takes more memory than {limits.memory_bytes >> 20} MiB.")
    except ImportError as exc:
        found = Found("server_error", f"The service cannot read files of this kind: {exc.name} is not installed.")
    except Exception as exc:
        found = Found("server_error", f"The service failed to read the file ({type(exc).__name__}).")
    with os.fdopen(1, "wb") as output:
        output.write(msgspec.json.encode(found) + b"\n")
        output.write(text.encode("utf-8", "replace"))


if __name__ == "__main__":
    die_with_parent(int(sys.argv[3]))
    bounds = msgspec.json.decode(sys.argv[2], type=Limits)
    confine(bounds)
    main(sys.argv[1], bounds)
