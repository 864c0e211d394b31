"""Triton's own metrics, from the port where it shows them: HTTP, and the only thing here that is not gRPC."""

from __future__ import annotations

import asyncio
import http.client

from frontend.domain.errors import Unavailable

TIMEOUT_S = 1.0
"""For each step on the way: to connect, and to get the next bytes."""
MOST_BYTES = 4 * 2**20


class TritonMetrics:
    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def read(self) -> str:
        """Prometheus text format. Raises Unavailable."""
        try:
            return await asyncio.to_thread(self._read)
        except (OSError, http.client.HTTPException) as exc:
            raise Unavailable("Triton shows no metrics.") from exc

    def _read(self) -> str:
        """A connection for each: Triton may have been restarted since. Asks no proxy."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise http.client.HTTPException(f"status {response.status}")
            return response.read(MOST_BYTES).decode(errors="replace")
        finally:
            connection.close()
