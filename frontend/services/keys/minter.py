"""Who makes and ends keys, and that a key never exceeds the one that makes it.

What a new key asks for is refused if it is more; what it does not ask for, it gets as its minter has it.
"""

from __future__ import annotations

import msgspec

from frontend.domain.errors import Forbidden
from frontend.domain.limits import Limits
from frontend.domain.principal import Principal, Scope

COMMAND_LINE_ID = "command-line"


class Minter(msgspec.Struct, frozen=True, kw_only=True):
    principal: Principal | None = None
    """None: the command line, whose user can read the database."""
    request_id: str | None = None
    client: str | None = None
    """Address."""

    @property
    def id(self) -> str:
        """As the audit log knows it."""
        return COMMAND_LINE_ID if self.principal is None else self.principal.key_id

    @property
    def key_id(self) -> str | None:
        return None if self.principal is None else self.principal.key_id

    def require_admin(self) -> None:
        """Raises Forbidden."""
        if self.principal is not None:
            self.principal.require("admin")

    def scopes(self, asked: frozenset[Scope]) -> frozenset[Scope]:
        """Raises Forbidden."""
        for scope in sorted(asked):
            if self.principal is not None and not self.principal.may(scope):
                raise Forbidden(f"Your key cannot give the scope {scope!r}, which it lacks.", param="scopes")
        return asked

    def expiry(self, asked: int | None) -> int | None:
        """Unix time, seconds. Raises Forbidden."""
        own = None if self.principal is None else self.principal.expires_at
        if own is None or asked is None:
            return own if asked is None else asked
        if asked > own:
            raise exceeds("Your key expires earlier than that.", "expires_in_s")
        return asked

    def limits(self, asked: Limits) -> Limits:
        """Raises Forbidden."""
        if self.principal is None:
            return asked
        own = self.principal.limits
        given = {name: self._limit(name, getattr(asked, name), getattr(own, name)) for name in Limits.__struct_fields__}
        return Limits(**given)

    @staticmethod
    def _limit(name: str, asked: int | None, own: int | None) -> int | None:
        if own is None or asked is None:
            return own if asked is None else asked
        if asked > own:
            raise exceeds(f"Your own key is limited to {own}.", f"limits.{name}")
        return asked


def exceeds(message: str, param: str) -> Forbidden:
    return Forbidden(message, param=param, code="exceeds_minter")
