"""Plans of tenants: what counts for whom, and a file that may change and be wrong."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from frontend.domain.limits import UNLIMITED, Limits
from frontend.domain.principal import Principal
from frontend.services.limits.plans import BUILT_IN, Plans
from frontend.settings import SettingsError

GOLD = """
[plans.default.tenant]
requests_per_minute = 60
[plans.gold.tenant]
concurrency = 9
[plans.gold.key]
requests_per_minute = 600
tokens_per_minute = 1000
[tenants]
acme = "gold"
plain = "default"
"""


def principal(tenant: str, limits: Limits = UNLIMITED) -> Principal:
    return Principal(key_id="key_1", tenant=tenant, scopes=frozenset(), limits=limits)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "plans.toml"


def of_tenant(plans: Plans, tenant: str) -> Limits:
    return plans.account(principal(tenant)).of_tenant


def test_without_a_file_all_have_the_built_in_plan() -> None:
    """A key has no limits but its own."""
    account = Plans().account(principal("acme"))
    assert (account.tenant, account.key_id) == ("acme", "key_1")
    assert account.of_tenant == BUILT_IN.tenant
    assert account.of_key == UNLIMITED
    own = Limits(concurrency=1)
    assert Plans().account(principal("acme", own)).of_key == own


def test_a_tenant_has_the_plan_of_its_line(path: Path) -> None:
    """And the default plan without one."""
    path.write_text(GOLD)
    plans = Plans(path)
    assert of_tenant(plans, "acme") == Limits(concurrency=9)
    assert of_tenant(plans, "plain") == of_tenant(plans, "other") == Limits(requests_per_minute=60)
    assert plans.account(principal("other")).of_key == UNLIMITED


def test_a_file_without_a_default_leaves_the_built_in_one(path: Path) -> None:
    """An empty file too."""
    path.write_text("")
    assert of_tenant(Plans(path), "acme") == BUILT_IN.tenant


def test_a_bare_default_lifts_all_limits(path: Path) -> None:
    """For a service with one user, and for measurements."""
    path.write_text("[plans.default]")
    assert of_tenant(Plans(path), "acme") == UNLIMITED


def test_a_keys_own_limits_go_before_those_of_the_plan(path: Path) -> None:
    """Field by field."""
    path.write_text(GOLD)
    own = Limits(requests_per_minute=5, concurrency=2)
    assert Plans(path).account(principal("acme", own)).of_key == Limits(
        requests_per_minute=5, tokens_per_minute=1000, concurrency=2
    )
    assert Plans(path).account(principal("acme")).of_key == Limits(requests_per_minute=600, tokens_per_minute=1000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[plans.a.tenant]\nconcurrency = -1", "plans[...].tenant.concurrency: expected `int` >= 0"),
        ("[plans.a.tenant]\nrequests_per_minute = 1.5", "plans[...].tenant.requests_per_minute: expected"),
        ("[plans.a.tenant]\ntokens_per_minute = 50_000_001", "plans[...].tenant.tokens_per_minute: expected"),
        ("[plans.a.tenant]\nrequests = 1", "plans[...].tenant: object contains unknown field `requests`"),
        ("[plans.a.keys]\n", "plans[...]: object contains unknown field `keys`"),
        ("[plan.a]\n", "unknown field `plan`"),
        ('[tenants]\nacme = "gold"', "tenants.acme: there is no plan 'gold'"),
        ("[plans", "plans.toml"),
        (None, "No such file"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start(path: Path, text: str | None, says: str) -> None:
    """With the setting, the file, and the place in it."""
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        Plans(path)
    assert str(caught.value).startswith(f"limits.plans (HERMES2_LIMITS_PLANS): {path}: ")
    assert says in str(caught.value)


def test_a_file_that_becomes_wrong_changes_nothing(path: Path) -> None:
    """It is logged once, as an error; the old plans stay until it is right again."""
    path.write_text(GOLD)
    plans = Plans(path)
    with capture_logs() as logs:
        path.write_text("[plans.gold")
        plans.look()
        plans.look()
        path.unlink()
        plans.look()
        plans.look()
    assert [each["event"] for each in logs] == ["plans_not_read"] * 2
    assert {each["log_level"] for each in logs} == {"error"}
    assert of_tenant(plans, "acme") == Limits(concurrency=9)
    path.write_text(GOLD.replace("9", "10"))
    plans.look()
    assert of_tenant(plans, "acme") == Limits(concurrency=10)


def test_a_file_that_is_replaced_is_seen(path: Path) -> None:
    """Of the same size and the same time, as some editors and config maps leave it."""
    path.write_text(GOLD)
    plans = Plans(path)
    other = path.with_suffix(".new")
    other.write_text(GOLD.replace("9", "8"))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    plans.look()
    assert of_tenant(plans, "acme") == Limits(concurrency=8)


async def test_a_change_counts_within_two_seconds(path: Path) -> None:
    """While the service runs; nothing has to be told."""
    path.write_text(GOLD)  # noqa: ASYNC240  # nobody else waits
    plans = Plans(path)
    async with plans.running(), asyncio.timeout(2):
        path.write_text(GOLD.replace("9", "10"))  # noqa: ASYNC240
        while of_tenant(plans, "acme") != Limits(concurrency=10):
            await asyncio.sleep(0.05)


async def test_without_a_file_nothing_runs() -> None:
    """There is nothing to look after."""
    async with Plans().running():
        await asyncio.sleep(0)
