"""A limiter that lets everything through, and remembers it."""

from __future__ import annotations

from frontend.domain.limits import Account, Grant, Standing


class FakeLimiter:
    def __init__(self) -> None:
        self.acquired: list[tuple[Account, int]] = []
        self.settled: list[tuple[Grant, int, bool]] = []

    async def acquire(self, account: Account, tokens: int, *, lease: bool) -> Grant:
        self.acquired.append((account, tokens))
        name = f"lease-{len(self.acquired)}" if lease else ""
        return Grant(account=account, id=name, tokens=tokens, local=True, standing=Standing())

    async def settle(self, grant: Grant, tokens: int, *, refund_request: bool = False) -> None:
        self.settled.append((grant, tokens, refund_request))
