"""Dependency injection: a handler's argument gets the runtime's field of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from litestar.datastructures import State
from litestar.di import Provide

from frontend.runtime import Runtime


def providers() -> dict[str, Provide | Callable[..., Any]]:
    return {
        field.name: Provide(provider(field.name), sync_to_thread=False) for field in msgspec.structs.fields(Runtime)
    }


def provider(name: str) -> Callable[[State], object]:
    def provide(state: State) -> object:
        return getattr(state.runtime, name)

    return provide
