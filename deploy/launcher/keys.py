"""API keys from the command line, whether the service runs or not."""

from __future__ import annotations

import time

from deploy.launcher.problem import Problem
from frontend.db.database import open_database
from frontend.db.engines import database_url
from frontend.domain.errors import ServiceError
from frontend.runtime import load_profiles
from frontend.services import api_keys
from frontend.settings import Settings


async def create(settings: Settings, tenant: str, name: str, profile: str | None) -> str:
    """A new key; the database is made, and brought to this version, if need be. Raises Problem, SettingsError."""
    sql = settings.sql
    url = database_url(settings)
    try:
        if profile is not None:
            load_profiles(settings).get(profile)
        pepper = api_keys.read_pepper(settings.home / "pepper")
        async with open_database(url, pool_size=1, timeout_s=sql.timeout_s, synchronous=sql.synchronous) as database:
            return await api_keys.create(database, pepper, tenant, name=name, profile=profile, now=int(time.time()))
    except ServiceError as exc:
        raise Problem(exc.message) from exc
