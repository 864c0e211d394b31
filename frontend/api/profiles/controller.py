"""GET /v1/profiles."""

from __future__ import annotations

from litestar import Controller, get
from litestar.di import NamedDependency

from frontend.api.profiles import mapping, schema
from frontend.domain.profiles import Profiles
from frontend.http.auth import needs


class ProfileController(Controller):
    path = "/v1/profiles"
    tags = ("Profiles",)
    opt = needs("models")

    @get()
    async def list(self, profiles: NamedDependency[Profiles]) -> schema.ProfileList:
        """The conversation profiles that a chat completion may name in `profile`."""
        return schema.ProfileList([mapping.profile(profile) for profile in profiles.list()])
