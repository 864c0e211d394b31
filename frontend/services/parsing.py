"""The port Parser over the library's process: its errors as ours."""

from __future__ import annotations

from pathlib import Path

from frontend.domain.errors import ParseFailed
from frontend.settings import RetrievalSettings
from retrieval.parsing.limits import Limits
from retrieval.parsing.process import ProcessParser
from retrieval.parsing.unreadable import Unreadable


class FileParser:
    """Implements frontend.domain.ports.Parser."""

    def __init__(self, settings: RetrievalSettings) -> None:
        self._process = ProcessParser(
            Limits(
                max_chars=settings.max_text,
                memory_bytes=int(settings.parse_memory),
                timeout_s=settings.parse_timeout_s,
            )
        )

    async def parse(self, filename: str, path: Path) -> str:
        """Raises ParseFailed; OSError if no process can be started."""
        try:
            return await self._process.parse(filename, path)
        except Unreadable as exc:
            raise ParseFailed(exc.message, code=exc.code) from exc
