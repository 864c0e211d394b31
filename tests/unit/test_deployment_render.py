"""One source for shared numbers: deploy/shares.toml and the settings, rendered into every deployment file."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from deploy.render import __main__ as command
from deploy.render import files, shares
from deploy.render.values import COMPOSE_PARTS, KUBERNETES_PARTS, cores
from frontend.observability import build
from frontend.settings import ROOT, ByteSize, Settings

FOLDERS = ("compose", "kubernetes", "systemd")
DEFAULTS = Settings()


def test_the_files_are_current() -> None:
    """Every deployment file is what `make deployment` writes."""
    stale = [str(path.relative_to(ROOT)) for path, text in files.rendered().items() if path.read_text() != text]
    assert stale == []


def test_no_file_is_written_by_hand() -> None:
    """Whatever lies in the three folders has a template, which its first lines name."""
    rendered = files.rendered()
    lying = {path for folder in FOLDERS for path in (ROOT / "deploy" / folder).rglob("*") if path.is_file()}
    kept = {path for path in lying if path.name not in (".env", ".gitignore") and "secrets" not in path.parts}
    assert kept == set(rendered)
    for path, text in rendered.items():
        assert f"deploy/templates/{path.relative_to(ROOT / 'deploy')}" in "".join(text.splitlines(True)[:3]), path


@pytest.mark.parametrize("names", [COMPOSE_PARTS, KUBERNETES_PARTS])
def test_the_parts_are_the_whole(names: tuple[str, ...]) -> None:
    """30 GiB and four cores, divided without a rest, and the engine has what it needs."""
    divided = shares.divide(shares.read(), DEFAULTS, names)
    total = shares.Share(memory_mib=0, cpu_milli=0)
    for part in divided.values():
        total += part
    assert total == shares.whole(DEFAULTS) == shares.Share(memory_mib=30 * 1024, cpu_milli=4000)


def test_parts_hold_what_the_settings_give_them() -> None:
    """Frontend, Valkey and engine have at least what the launcher's own budget reckons with."""
    parts, memory = shares.read().parts, DEFAULTS.memory
    frontend_bytes = memory.frontend_worker * DEFAULTS.workers + memory.sql + memory.indexes
    assert parts["frontend"].memory_mib * 2**20 >= frontend_bytes
    assert parts["valkey"].memory_mib * 2**20 >= memory.valkey
    weights_bytes = 16.1e9
    assert shares.read().engine.memory_mib * 2**20 >= memory.engine_runtime + memory.triton + weights_bytes


def test_parts_that_are_too_large_are_refused() -> None:
    """The error names the file and both numbers."""
    greedy = msgspec.structs.replace(
        shares.read(), parts={"frontend": shares.Share(memory_mib=20 * 1024, cpu_milli=1000)}
    )
    with pytest.raises(shares.SharesError, match=r"deploy/shares\.toml: frontend leave the engine 10240 MiB .* 24576"):
        shares.divide(greedy, DEFAULTS, ("frontend",))


def test_every_number_comes_from_its_source() -> None:
    """Other settings, and no file says 30 GB, four cores, 11401, 8001, 8002 or 30 s any more."""
    other = Settings(
        memory_limit=ByteSize(64 * 10**9),
        cpus=8,
        port=12402,
        triton=msgspec.structs.replace(DEFAULTS.triton, grpc_port=9001, metrics_port=9002),
        http=msgspec.structs.replace(DEFAULTS.http, drain_timeout_s=77.0),
    )
    texts = files.rendered(other)
    for path, text in texts.items():
        assert not re.findall(r"\b(?:11401|8001|8002|30G|30Gi|400%|30 GB)\b", text), path
    unit = texts[ROOT / "deploy/systemd/hermes2.service"]
    assert {"MemoryMax=64G", "CPUQuota=800%"} <= set(unit.splitlines())
    assert "terminationGracePeriodSeconds: 87" in texts[ROOT / "deploy/kubernetes/base/frontend.yaml"]
    assert '"--workers-kill-timeout", "77"' in texts[ROOT / "deploy/compose/frontend.Dockerfile"]
    compose = texts[ROOT / "deploy/compose/compose.yaml"]
    assert 'target: 12402, published: "12402"' in compose
    assert "memory: 60928M" in compose  # the engine's: all that is more


def test_the_page_has_the_shares() -> None:
    """docs/deployment.md tells each part's memory and CPUs as they are."""
    page = (ROOT / "docs/deployment.md").read_text()
    compose = shares.divide(shares.read(), DEFAULTS, COMPOSE_PARTS)
    kubernetes = shares.divide(shares.read(), DEFAULTS, KUBERNETES_PARTS)
    engines = compose["engine"], kubernetes["engine"]
    memory = f"{engines[0].memory_mib:,} MiB (Kubernetes: {engines[1].memory_mib:,})"
    assert f"| engine | {memory} | {cores(engines[0])} ({cores(engines[1])}) |" in page
    for name, shown in {"frontend": "frontend", "postgresql": "PostgreSQL", "valkey": "Valkey"}.items():
        assert f"| {shown} | {compose[name].memory_mib:,} MiB | {cores(compose[name])} |" in page
    watch = kubernetes["watch"]
    assert f"| watch (Kubernetes) | {watch.memory_mib:,} MiB | {cores(watch)} |" in page


def test_check_names_what_is_stale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -m deploy.render --check` ends with 1 and writes nothing; without it, the file is written."""
    path = tmp_path / "deploy/compose/compose.yaml"
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(command, "rendered", lambda: {path: "new\n"})
    assert command.main(["--check"]) == 1
    assert "deploy/compose/compose.yaml" in capsys.readouterr().err
    assert not path.exists()
    assert command.main([]) == 0
    assert path.read_text() == "new\n"
    assert command.main(["--check"]) == 0


def test_image_and_project_have_one_version() -> None:
    """The image's tag, and what it tells of itself, is the version of pyproject.toml."""
    assert f"hermes2_service-{build.VERSION}.dist-info" in (ROOT / "deploy/compose/frontend.Dockerfile").read_text()
    assert f"image: hermes2-frontend:{build.VERSION}\n" in (ROOT / "deploy/compose/compose.yaml").read_text()
