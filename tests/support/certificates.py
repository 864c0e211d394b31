"""Self-signed certificates for 127.0.0.1, made with the openssl of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

SUBJECT = ["-subj", "/CN=hermes2.test"]
AUTHORITY = """
[ca]
default_ca = own
[own]
new_certs_dir = {folder}
database = {folder}/issued
serial = {folder}/serial
default_md = sha256
policy = names
[names]
commonName = supplied
"""
"""What `openssl ca` wants: it alone dates a certificate back."""


def make(folder: Path, name: str, *, days: int = 2) -> tuple[Path, Path]:
    """The files of a certificate and its key (PKCS#8), in PEM."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    options = ["-x509", "-out", str(certificate), "-days", str(days)]
    openssl("req", *new(key), *options, "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    key.chmod(0o600)
    return certificate, key


def make_expired(folder: Path) -> tuple[Path, Path]:
    """The same, of one day in 2020."""
    certificate, key, request, config = (folder / f"expired.{kind}" for kind in ("pem", "key", "csr", "cnf"))
    config.write_text(AUTHORITY.format(folder=folder))
    (folder / "issued").touch()
    (folder / "serial").write_text("01")
    openssl("req", *new(key), "-out", str(request))
    dates = ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z"]
    files = ["-config", str(config), "-keyfile", str(key), "-in", str(request), "-out", str(certificate)]
    openssl("ca", "-selfsign", "-batch", "-notext", *files, *dates)
    key.chmod(0o600)
    return certificate, key


def new(key: Path) -> list[str]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key), *SUBJECT]


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
