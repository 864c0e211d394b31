"""hermes2 keys: as it is called from a shell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from frontend import settings
from frontend.db.database import SqlDatabase
from frontend.db.engines import database_url
from frontend.domain.principal import Principal
from frontend.services import api_keys
from frontend.services.api_keys import ApiKeyService
from tests.support.database import opened


def hermes2(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from deploy.launcher.cli import main; main()", *arguments],
        env={"HERMES2_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_key_is_made_without_a_service(tmp_path: Path) -> None:
    """In a home that is not there yet: the key alone is printed, what it is goes to the other stream; it works."""
    home = tmp_path / "home"
    made = hermes2(home, "keys", "create", "--tenant", "acme", "--name", "notebook", "--profile", "concise")
    assert (made.returncode, made.stdout.count("\n")) == (0, 1)
    key = made.stdout.strip()
    assert key not in made.stderr
    assert "acme" in made.stderr
    async with opened(database_url(settings.load({"HERMES2_HOME": str(home)}))) as database:
        service = ApiKeyService("bootstrap", database, api_keys.read_pepper(home / "pepper"))
        principal = await service.authenticate(f"Bearer {key}")
        assert principal == Principal(principal.key_id, "acme", frozenset({"chat"}), "concise")
        async with database.reading() as uow:
            stored = await uow.keys.find(principal.key_id)
        assert stored is not None
        assert stored.name == "notebook"


async def test_a_key_is_made_beside_a_running_service(sqlite_database: SqlDatabase, tmp_path: Path) -> None:
    """Which knows it at once."""
    service = ApiKeyService("bootstrap", sqlite_database, api_keys.read_pepper(tmp_path / "pepper"))
    made = hermes2(tmp_path, "keys", "create", "--tenant", "acme")
    assert (await service.authenticate(f"Bearer {made.stdout.strip()}")).tenant == "acme"


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (["--tenant", "Acme Inc."], {}, "A tenant is called by"),
        (["--tenant", "acme", "--profile", "nope"], {}, "There is no profile 'nope'"),
        (["--tenant", "acme"], {"HERMES2_SQL_URL": "mysql://x"}, "sql.url (HERMES2_SQL_URL)"),
        (["--tenant", "acme"], {"HERMES2_SQL_URL": "postgresql://u:hidden@127.0.0.1:9/x"}, "does not answer"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], variables: dict[str, str], says: str) -> None:
    """On the stream for errors; no key, no traceback, no password."""
    failed = hermes2(tmp_path, "keys", "create", *arguments, **variables)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert says in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("hermes2: ")
    assert "Traceback" not in failed.stderr
    assert "hidden" not in failed.stderr
