"""The secret of this installation, under which secrets of keys are stored. It is in no database and in no backup of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import structlog

from frontend.settings import SettingsError

log = structlog.get_logger("hermes2.keys")
PEPPER_BYTES = 32


def read_pepper(path: Path) -> bytes:
    """32 bytes, made if there are none. Raises SettingsError.

    All processes that share a database need the same ones. The file appears complete or not at all: linked, never written
    in its place.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(PEPPER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            log.info("pepper_made_by_another_process")
        finally:
            draft.unlink()
    pepper = path.read_bytes()
    if len(pepper) != PEPPER_BYTES:
        raise SettingsError(f"home (HERMES2_HOME): {path} is damaged: {len(pepper)} bytes where {PEPPER_BYTES} belong")
    return pepper
