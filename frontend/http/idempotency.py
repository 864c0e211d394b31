"""Idempotency-Key on every POST: the first request is worked on to its end, the others get its reply. Knows no resource.

A middleware, because only that sees the reply go by; and a hook before the handler, because only there it is known whose
request it is. The request without the header passes both with a look at its method and its headers.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from frontend.domain.errors import InProgress, InvalidRequest
from frontend.domain.idempotency import LARGEST_BYTES, Keeper, Recording, StoredReply, body_of, recorded
from frontend.domain.principal import Principal
from frontend.http import errors
from frontend.http.replies import STREAM_HEADERS

HEADER = b"idempotency-key"
FORM = re.compile(rb"[\x21-\x7e]{1,255}")
REFUSED = {
    "/v1/files": "Uploads take no Idempotency-Key: what was uploaded twice can be deleted.",
    "/v1/admin": "Requests about keys take no Idempotency-Key: their replies hold secrets, which are kept nowhere.",
}
"""Paths whose POSTs take none, with all below them; every other POST does."""
EXCHANGE = "idempotency"
"""In the scope's state: the exchange of a request that came with a key."""
SESSION = "x-session-id"
CHARSET = "; charset=utf-8"


class Idempotency(ASGIMiddleware):
    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        key = header(scope, HEADER) if scope["method"] == "POST" else None  # type: ignore[typeddict-item]  # HTTP has it
        if key is None:
            await next_app(scope, receive, send)
            return
        exchange = Exchange(key, scope, receive, send)
        scope.setdefault("state", {})[EXCHANGE] = exchange
        try:
            await next_app(scope, exchange.receive, exchange.send)
        finally:
            await exchange.end()


class Exchange:
    """One request with a key, between the client and its handler.

    Once it is claimed it is finished, and its reply kept, even if the client leaves: that is what the key is for.
    """

    def __init__(self, key: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        self.key = key
        self._state: dict[str, Any] = scope.setdefault("state", {})
        self._receive = receive
        self._send = send
        self._left = asyncio.Event()
        self._keeper: Keeper | None = None
        """Set while the claim is ours."""
        self._tenant = ""
        self._status = 0
        self._content_type = ""
        self._recording = Recording()

    async def claim(self, keeper: Keeper, tenant: str, fingerprint: bytes) -> Response[bytes] | None:
        """The reply of the first request with this key; None: this is the first. Raises InProgress, KeyReused, Unavailable."""
        reply = await keeper.begin(tenant, self.key.decode(), fingerprint)
        if reply is None:
            self._keeper, self._tenant = keeper, tenant
            return None
        headers = {"idempotent-replayed": "true"}
        if reply.content_type.startswith("text/event-stream"):
            headers |= {name.decode(): value.decode() for name, value in STREAM_HEADERS[1:]}
        media_type = reply.content_type.removesuffix(CHARSET)  # Litestar adds it to every text
        return Response(body_of(reply), status_code=reply.status, media_type=media_type, headers=headers)

    async def receive(self) -> Any:
        """As the server's; but that the client has left is not told to whoever works on what was claimed."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and self._keeper is not None:
            self._left.set()
            await asyncio.get_running_loop().create_future()
        return message

    async def send(self, message: Message) -> None:
        if self._keeper is not None:
            await self._record(message)
        if not self._left.is_set():
            await self._forward(message)

    async def _record(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            found = dict(message.get("headers", ()))
            self._content_type = found.get(b"content-type", b"application/json").decode()
        elif message["type"] == "http.response.body":
            self._recording.add(message.get("body", b""))
            if not message.get("more_body"):
                await self._settle()

    async def _forward(self, message: Message) -> None:
        """A client that reads no more and then leaves would keep `send` waiting for ever."""
        if self._keeper is None:
            await self._send(message)
            return
        sending, leaving = asyncio.ensure_future(self._send(message)), asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait([sending, leaving], return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            leaving.cancel()

    async def _settle(self) -> None:
        """Before the client has the last byte: a reply that was read is one that is kept."""
        keeper, self._keeper = self._keeper, None
        assert keeper is not None
        key = self.key.decode()
        if self._status >= 400 or self._state.get("error_code") is not None:
            await keeper.give_up(self._tenant, key)
            return
        reply = self._recording.reply(self._status, self._content_type)
        await keeper.answer(self._tenant, key, reply or too_large())

    async def end(self) -> None:
        """Nothing was answered to the end: another request may try."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.give_up(self._tenant, self.key.decode())


async def before_request(request: Request[Any, Any, Any]) -> Response[bytes] | None:
    """Litestar's hook behind the guard. Raises InvalidRequest, TooLarge, InProgress, KeyReused, Unavailable."""
    exchange: Exchange | None = request.scope.get("state", {}).get(EXCHANGE)
    if exchange is None:
        return None
    refuse_wrong(exchange.key, request.scope["path"])
    principal: Principal = request.scope["user"]
    runtime = request.app.state.runtime
    fingerprint = fingerprint_of(request, principal, await request.body())
    gated = request.scope["route_handler"].opt.get("gated")
    try:
        reply = await exchange.claim(runtime.idempotency, principal.tenant, fingerprint)
    except InProgress:
        if gated:
            await runtime.gate.count(principal)
        raise
    if reply is not None and gated:  # where it is not, the guard has counted it
        await runtime.gate.count(principal)
    return reply


def refuse_wrong(key: bytes, path: str) -> None:
    """Raises InvalidRequest."""
    for refused, why in REFUSED.items():
        if path == refused or path.startswith(f"{refused}/"):
            raise InvalidRequest(why, param="Idempotency-Key")
    if not FORM.fullmatch(key):
        raise InvalidRequest("An Idempotency-Key has 1 to 255 visible ASCII characters.", param="Idempotency-Key")


def fingerprint_of(request: Request[Any, Any, Any], principal: Principal, body: bytes) -> bytes:
    """SHA-256 of all that the reply depends on; of the key of the API only what it may do, so that it can be rotated."""
    path = request.scope["raw_path"] or request.scope["path"].encode()
    rights = " ".join(sorted(principal.scopes)), principal.profile or ""
    session = request.headers.get(SESSION, "")
    digest = hashlib.sha256()
    for part in (b"POST", path, request.scope["query_string"], *(text.encode() for text in (*rights, session)), body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def too_large() -> StoredReply:
    """What is kept in the place of a reply that is too large: the request must not be worked on again."""
    error = InvalidRequest(
        f"The request with this Idempotency-Key has been answered, but its reply was over {LARGEST_BYTES} bytes, and was"
        " not kept.",
        code="idempotency_reply_too_large",
    )
    return recorded(409, "application/json", msgspec.json.encode(errors.envelope(error)))


def header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for each, value in scope["headers"] if each == name), None)
