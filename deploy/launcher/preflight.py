"""What can be known to be wrong before anything starts, each in one line."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.launcher.problem import Problem
from frontend.settings import Settings

NEEDED_FREE_BYTES = 10**9
PREVIOUS_TIMEOUT_S = 60.0
UNIX_SOCKET_PATH_MAX = 100


@contextmanager
def only_launcher(home: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One launcher per home. A previous one that is still ending is waited for. Raises Problem."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "launcher.lock").open("a+") as lock:
        deadline = time.monotonic() + PREVIOUS_TIMEOUT_S
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                owner = lock.read().strip() or "?"
                if time.monotonic() > deadline:
                    raise Problem(f"home (HERMES2_HOME): {home} is in use by the launcher with pid {owner}") from None
                if not told:
                    say(f"waiting for the launcher with pid {owner} to end")
                    told = True
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def check_disk(home: Path) -> None:
    free = shutil.disk_usage(home).free
    if free < NEEDED_FREE_BYTES:
        raise Problem(
            f"home (HERMES2_HOME): {home} has {free / 1e9:.1f} GB free, {NEEDED_FREE_BYTES / 1e9:.0f} GB are needed"
        )


def check_ports(settings: Settings) -> None:
    """Raises Problem naming the port that is taken."""
    wanted = [
        ("port (HERMES2_PORT)", settings.host, settings.port),
        ("triton.grpc_port (HERMES2_TRITON_GRPC_PORT)", "127.0.0.1", settings.triton.grpc_port),
        ("triton.metrics_port (HERMES2_TRITON_METRICS_PORT)", "127.0.0.1", settings.triton.metrics_port),
    ]
    numbers = [port for _, _, port in wanted]
    for name, host, port in wanted:
        if numbers.count(port) > 1:
            raise Problem(f"{name}: {port} is given twice")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as exc:
                raise Problem(f"{name}: {host}:{port} cannot be used: {exc.strerror}") from exc


def ensure_api_key(settings: Settings) -> str | None:
    """Makes the bootstrap key if there is none; returns it only then, to be shown once."""
    if settings.api_key is not None or settings.api_key_file.exists():
        return None
    key = f"hm2_{secrets.token_urlsafe(32)}"
    draft = settings.api_key_file.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key + "\n")
    draft.rename(settings.api_key_file)
    return key


def valkey_socket(home: Path) -> Path:
    """In home, unless the path would be longer than a Unix socket's may be."""
    path = home / "run/valkey.sock"
    if len(str(path)) > UNIX_SOCKET_PATH_MAX:
        digest = hashlib.sha256(str(home).encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"hermes2-{os.getuid()}-{digest}" / "valkey.sock"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path
