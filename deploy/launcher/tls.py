"""The API's certificate: whether it can be served, and how this machine's own programs trust it."""

from __future__ import annotations

import ipaddress
import ssl
import time
from pathlib import Path

from deploy.launcher.problem import Problem
from frontend.settings import Settings

CERTIFICATE = "http.tls_certificate (HERMES2_HTTP_TLS_CERTIFICATE)"
KEY = "http.tls_key (HERMES2_HTTP_TLS_KEY)"
PLAINTEXT = "http.allow_plaintext (HERMES2_HTTP_ALLOW_PLAINTEXT)"
PKCS8 = "-----BEGIN PRIVATE KEY-----"
"""What Granian's TLS reads."""
SOON_S = 14 * 86_400
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # where to ask a server that listens everywhere


def is_on(settings: Settings) -> bool:
    return settings.http.tls_certificate is not None


def own_host(settings: Settings) -> str:
    """Where this machine's own programs ask."""
    return ANY_ADDRESS.get(settings.host, settings.host)


def url(settings: Settings, host: str) -> str:
    return f"{'https' if is_on(settings) else 'http'}://{f'[{host}]' if ':' in host else host}:{settings.port}"


def check(settings: Settings) -> list[str]:
    """Warnings. Raises Problem for files that cannot be served, and for plain HTTP that leaves this machine untold."""
    certificate, key = settings.http.tls_certificate, settings.http.tls_key
    if certificate is None and key is None:
        if not settings.http.allow_plaintext and not is_loopback(settings.host):
            raise Problem(
                f"host (HERMES2_HOST): {settings.host} is not this machine alone, and keys and texts would go over the"
                f" network in the clear: set {CERTIFICATE} and {KEY},"
                f" or {PLAINTEXT} behind a proxy that speaks TLS"
            )
        return []
    if certificate is None or key is None:
        raise Problem(f"{CERTIFICATE} and {KEY}: one is set without the other")
    check_key(key)
    ends_at = last_second(certificate, key)
    if ends_at - time.time() < SOON_S:
        return [f"{CERTIFICATE}: {certificate} expires on {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(ends_at))}"]
    return []


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_key(key: Path) -> None:
    try:
        text, mode = key.read_text(), key.stat().st_mode
    except (OSError, UnicodeDecodeError) as exc:
        raise Problem(f"{KEY}: {key} cannot be read: {exc}") from exc
    if mode & 0o007:
        raise Problem(f"{KEY}: everybody on this machine can use {key}: chmod o= {key}")
    if PKCS8 not in text:
        raise Problem(f"{KEY}: {key} is no unencrypted PKCS#8 key in PEM: openssl pkcs8 -topk8 -nodes -in {key}")


def last_second(certificate: Path, key: Path) -> float:
    """When the certificate ends, Unix time. Raises Problem unless it serves a handshake, which is tried in memory."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate, key)
        client = trusting(certificate)
    except (OSError, ssl.SSLError) as exc:
        if isinstance(exc, ssl.SSLError) and exc.reason == "KEY_VALUES_MISMATCH":
            raise Problem(f"{KEY}: {key} is not the key of {certificate}") from exc
        raise Problem(f"{CERTIFICATE}: {certificate} cannot be read: {exc}") from exc
    try:
        return handshake(server, client)
    except ssl.SSLCertVerificationError as exc:
        raise Problem(f"{CERTIFICATE}: {certificate} cannot be served: {exc.verify_message}") from exc


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> float:
    """The end of the server's certificate, Unix time. Raises SSLCertVerificationError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [ours, theirs]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
    found = ours.getpeercert()
    assert found is not None
    return ssl.cert_time_to_seconds(str(found["notAfter"]))


def trusting(certificate: Path) -> ssl.SSLContext:
    """A client that trusts this certificate, and what was signed by one of the same file, whatever the host is called."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


def of_authority(ca_file: Path) -> ssl.SSLContext:
    """A client that trusts the authorities of `ca_file` alone, and checks the host's name. Raises Problem."""
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as exc:
        raise Problem(f"--ca-file: {ca_file} cannot be read: {exc}") from exc


def unchecked() -> ssl.SSLContext:
    """For a question to this machine that tells and learns nothing: does it answer?"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
