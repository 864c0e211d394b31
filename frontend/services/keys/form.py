"""What a key looks like, and what is kept of it.

A key is `hm2_<id>_<secret><check>`: 16 hexadecimal digits that the row is found by, 32 random bytes as base64url, and a
CRC-32 of all before as 6 digits of base 62, by which a typo is told without asking the database. The database holds an
HMAC of the secret under the pepper, a file that is not in it: who reads the one without the other can do nothing with it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import string
import zlib

from frontend.domain.errors import Unauthenticated

KEY = re.compile(r"hm2_([0-9a-f]{16})_([A-Za-z0-9_-]{43})([0-9A-Za-z]{6})")
KEY_ID = re.compile(r"[0-9a-f]{16}")
BASE_62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


def new() -> tuple[str, str]:
    """Id and secret of a new key."""
    return secrets.token_hex(8), base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def text_of(key_id: str, secret: str) -> str:
    """The key as it is sent."""
    text = f"hm2_{key_id}_{secret}"
    return text + check(text)


def parse(text: str) -> tuple[str, str]:
    """Id and secret. Raises Unauthenticated for what cannot be a key."""
    match = KEY.fullmatch(text)
    if match is None or check(text[: -len(match[3])]) != match[3]:
        raise unknown()
    return match[1], match[2]


def check(text: str) -> str:
    """CRC-32 in base 62, 6 digits."""
    crc, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        crc, digit = divmod(crc, 62)
        digits = BASE_62[digit] + digits
    return digits


def digest(pepper: bytes, secret: str) -> bytes:
    return hmac.digest(pepper, secret.encode(), hashlib.sha256)


def unknown() -> Unauthenticated:
    return Unauthenticated("The API key is not known.")
