"""deploy/launcher/tls: what keeps a service from starting, said in one line each."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.launcher import tls
from deploy.launcher.frontend import tls_options
from deploy.launcher.problem import Problem
from deploy.launcher.serve import announcement
from frontend import settings
from frontend.settings import Settings
from tests.support.certificates import make, make_expired


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make(tmp_path_factory.mktemp("tls"), "good", days=90)


def of(certificate: Path | None, key: Path | None, **variables: str) -> Settings:
    given = {"HTTP_TLS_CERTIFICATE": certificate, "HTTP_TLS_KEY": key} | variables
    return settings.load({f"HERMES2_{name}": str(value) for name, value in given.items() if value is not None})


def test_a_certificate_that_can_be_served_passes(files: tuple[Path, Path]) -> None:
    """Without a word; the announcement and the server's options name what is served."""
    loaded = of(*files, HOST="0.0.0.0")  # noqa: S104  # nothing listens
    assert tls.check(loaded) == []
    assert announcement(loaded, "model", None)[0].endswith("answers on https://0.0.0.0:11401/v1")
    assert tls_options(loaded)[:2] == ["--ssl-certificate", str(files[0])]
    assert tls_options(of(None, None)) == []


def test_half_of_a_pair_is_refused(files: tuple[Path, Path]) -> None:
    """A certificate without its key, and the other way round."""
    for given in ((files[0], None), (None, files[1])):
        with pytest.raises(Problem, match="one is set without the other"):
            tls.check(of(*given))


def test_what_cannot_be_read_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    """No file, no PEM, no key of the kind that the server reads."""
    noise = tmp_path / "noise"
    noise.write_text("no certificate")
    noise.chmod(0o600)
    missing = tmp_path / "missing"
    for certificate, key, what in (
        (files[0], missing, "missing cannot be read"),
        (missing, files[1], "missing cannot be read"),
        (noise, files[1], "noise cannot be read"),
        (files[0], noise, "no unencrypted PKCS#8 key"),
    ):
        with pytest.raises(Problem, match=what):
            tls.check(of(certificate, key))


def test_another_certificates_key_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Before the server ends over it."""
    _, other = make(tmp_path, "other")
    with pytest.raises(Problem, match=r"other\.key is not the key of .*good\.pem"):
        tls.check(of(files[0], other))


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    """And one that will expire soon is warned of."""
    expired = make_expired(tmp_path)
    with pytest.raises(Problem, match="certificate has expired"):
        tls.check(of(*expired))
    (warning,) = tls.check(of(*make(tmp_path, "soon", days=3)))
    assert "expires on 20" in warning


def test_a_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    """With the command that helps."""
    certificate, key = make(tmp_path, "open")
    key.chmod(0o644)
    with pytest.raises(Problem, match="chmod o="):
        tls.check(of(certificate, key))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "hermes.example"])  # noqa: S104  # nothing listens
def test_plain_http_off_this_machine_is_refused_unless_told(host: str) -> None:
    """Keys and texts would go over the network in the clear."""
    with pytest.raises(Problem, match=r"HERMES2_HTTP_TLS_CERTIFICATE.*HERMES2_HTTP_ALLOW_PLAINTEXT"):
        tls.check(of(None, None, HOST=host))
    assert tls.check(of(None, None, HOST=host, HTTP_ALLOW_PLAINTEXT="true")) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_plain_http_on_this_machine_is_as_ever(host: str) -> None:
    """Nothing leaves it."""
    assert tls.check(of(None, None, HOST=host)) == []


def test_own_programs_ask_this_machine() -> None:
    """Where it listens everywhere, too; addresses of IPv6 have brackets."""
    assert tls.url(of(None, None), tls.own_host(of(None, None, HOST="0.0.0.0"))) == "http://127.0.0.1:11401"  # noqa: S104
    assert tls.url(of(None, None), tls.own_host(of(None, None, HOST="::"))) == "http://[::1]:11401"
