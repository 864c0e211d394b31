"""Which limits count for whom: plans of tenants, from a file that is read again when it changes."""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import msgspec
import structlog

from frontend.domain.limits import UNLIMITED, Account, Limits
from frontend.domain.principal import Principal
from frontend.settings import SettingsError

log = structlog.get_logger("hermes2.limits")
LOOK_EVERY_S = 1.0
DEFAULT = "default"
Stamp = tuple[int, int, int]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    tenant: Limits = UNLIMITED
    key: Limits = UNLIMITED
    """Of each key of such a tenant, where it has none of its own."""


BUILT_IN = Plan(tenant=Limits(requests_per_minute=6000, tokens_per_minute=20_000_000, concurrency=256))
"""A request without max_tokens is charged its whole window until it ends: so many tokens are 406 of them at a time."""


class PlanFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plans: Mapping[str, Plan] = {}
    tenants: Mapping[str, str] = {}
    """The plan of each by its name; those that are not here have the default one."""


NO_FILE = PlanFile()


class Plans:
    def __init__(self, path: Path | None = None) -> None:
        """None: the built-in plan for all. Raises SettingsError."""
        self._path = path
        self._default = BUILT_IN
        self._of_tenants: Mapping[str, Plan] = MappingProxyType({})
        self._stamp: Stamp | None = None
        if path is not None:
            try:
                self._stamp = stamp(path)
                self._use(read(path))
            except (OSError, ValueError) as exc:
                raise SettingsError(f"limits.plans (HERMES2_LIMITS_PLANS): {path}: {exc}") from exc

    def account(self, principal: Principal) -> Account:
        plan = self._of_tenants.get(principal.tenant, self._default)
        return Account(
            tenant=principal.tenant,
            key_id=principal.key_id,
            of_tenant=plan.tenant,
            of_key=merged(principal.limits, plan.key),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Looks after the file each second."""
        looker = asyncio.create_task(self._keep_looking())
        try:
            yield
        finally:
            looker.cancel()
            await asyncio.wait([looker])

    async def _keep_looking(self) -> None:
        while self._path is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Reads the file if it has changed. One that is wrong, or gone, is logged once, and changes nothing. Blocking."""
        assert self._path is not None
        try:
            found = stamp(self._path)
        except OSError:
            found = None
        if found == self._stamp:
            return
        self._stamp = found
        try:
            self._use(read(self._path))
        except (OSError, ValueError) as exc:
            log.error("plans_not_read", path=str(self._path), error=str(exc))
        else:
            log.info("plans_read", path=str(self._path), tenants=len(self._of_tenants))

    def _use(self, file: PlanFile) -> None:
        default = file.plans.get(DEFAULT, BUILT_IN)
        self._of_tenants = {
            tenant: default if name == DEFAULT else file.plans[name] for tenant, name in file.tenants.items()
        }
        self._default = default


def read(path: Path) -> PlanFile:
    """Raises OSError, ValueError with the path inside the file."""
    try:
        file = msgspec.convert(tomllib.loads(path.read_text()), PlanFile)
    except msgspec.ValidationError as exc:
        raise ValueError(explain(str(exc))) from exc
    for tenant, name in file.tenants.items():
        if name != DEFAULT and name not in file.plans:
            raise ValueError(f"tenants.{tenant}: there is no plan {name!r}")
    return file


def stamp(path: Path) -> Stamp:
    """Differs when the file was written or replaced."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino


def merged(own: Limits, of_plan: Limits) -> Limits:
    """The key's own, and the plan's where it has none."""
    if own == UNLIMITED or of_plan == UNLIMITED:
        return of_plan if own == UNLIMITED else own
    return Limits(
        **{
            field: of_plan_value if (value := getattr(own, field)) is None else value
            for field in Limits.__struct_fields__
            for of_plan_value in [getattr(of_plan, field)]
        }
    )


def explain(message: str) -> str:
    """msgspec's "Expected `int` >= 0 - at `$.plans[...].key.concurrency`" with the place before it."""
    match = re.fullmatch(r"(.*?) - at `\$\.?(.+)`", message, re.DOTALL)
    return message if match is None else f"{match[2]}: {match[1][:1].lower()}{match[1][1:]}"
