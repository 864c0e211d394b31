"""Who the client is: its own address, unless a proxy that the settings trust says on whose behalf it asks.

Granian gives the peer's address and reads no forwarding header; nothing else here does either.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from litestar.types import Scope

from frontend.settings import SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
FORWARDED_FOR = b"x-forwarded-for"


class Proxies:
    def __init__(self, trusted: Sequence[str] = ()) -> None:
        """`trusted`: addresses and networks. Raises SettingsError."""
        self._networks = [network(text) for text in trusted]

    def client_of(self, scope: Scope) -> str | None:
        """The rightmost address that is no trusted proxy's; what is left of it anybody could have written.

        A chain that cannot be read ends there: the last proxy that was understood is taken for the client. None: the
        server does not know its peer.
        """
        peer = scope.get("client")
        if not peer:
            return None
        client = address(peer[0])
        if client is None or not self._trusts(client):
            return str(client or peer[0])
        for each in reversed(forwarded(scope)):
            before = address(each)
            if before is None:
                break
            client = before
            if not self._trusts(client):
                break
        return str(client)

    def _trusts(self, client: Address) -> bool:
        return any(client in network for network in self._networks)


def forwarded(scope: Scope) -> list[str]:
    """Several headers are one list."""
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == FORWARDED_FOR]
    return [each.strip() for value in values for each in value.split(",")]


def address(text: str) -> Address | None:
    """Also with brackets or a port, as some proxies write it; an IPv4 address in IPv6's clothes is itself."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as exc:
        raise SettingsError(f"http.trusted_proxies (HERMES2_HTTP_TRUSTED_PROXIES): {exc}") from exc
