"""A hot state that forgets nothing until it is told to be dead. Passes the same contract as Valkey (tests/contract)."""

from __future__ import annotations

from frontend.domain.conversations import Window


class FakeHotState:
    def __init__(self, alive: bool = True) -> None:
        self.alive = alive
        self._windows: dict[tuple[str, str], Window] = {}

    async def check(self) -> bool:
        return self.alive

    async def get_window(self, tenant: str, conversation_id: str, version: int) -> Window | None:
        window = self._windows.get((tenant, conversation_id)) if self.alive else None
        return window if window is not None and window.conversation.version == version else None

    async def put_window(self, tenant: str, window: Window) -> None:
        if self.alive:
            self._windows[tenant, window.conversation.id] = window

    async def drop_window(self, tenant: str, conversation_id: str) -> None:
        if self.alive:
            self._windows.pop((tenant, conversation_id), None)
