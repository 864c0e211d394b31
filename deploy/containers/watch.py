"""`python -m deploy.containers.watch PORT`: tells Kubernetes whether the engine beside it works, by asking the engine's own loop.

GET anything: 200 if vLLM's loop has answered through Triton and the stub, else 503. A socket that opens tells less: Triton
goes on listening when the engine hangs, and when its Python process is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from frontend import settings as settings_module
from frontend.domain.errors import ServiceError
from frontend.settings import Settings
from frontend.triton.engine import TritonEngine, open_engine

HEAD_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 8.0
"""Less than the kubelet waits (timeoutSeconds in engine.yaml)."""


async def answers(engine: TritonEngine) -> bool:
    try:
        await asyncio.wait_for(engine.check(), ANSWER_TIMEOUT_S)
    except (ServiceError, TimeoutError):
        return False
    return True


@asynccontextmanager
async def listening(settings: Settings, host: str, port: int) -> AsyncIterator[asyncio.Server]:
    """Answers until it is left. `port` 0: any that is free."""
    address = f"{settings.triton.grpc_host}:{settings.triton.grpc_port}"
    async with open_engine(address, ANSWER_TIMEOUT_S) as engine:

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_TIMEOUT_S)
                status = b"200 OK" if await answers(engine) else b"503 Service Unavailable"
                writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(connected, host, port) as server:
            yield server


async def run(port: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with listening(settings_module.load(), "0.0.0.0", port):  # noqa: S104  # a pod's own address, for its kubelet
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1])))
