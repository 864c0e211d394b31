"""From the domain's profiles to the wire's."""

from __future__ import annotations

from frontend.api.profiles import schema
from frontend.domain.profiles import Profile


def profile(data: Profile) -> schema.Profile:
    return schema.Profile(
        id=f"{data.name}@{data.version}", name=data.name, version=data.version, description=data.description
    )
