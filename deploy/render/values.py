"""What the templates may name, each taken from the one place where it stands."""

from __future__ import annotations

from typing import Any

from deploy.launcher import frontend as launched_frontend
from deploy.launcher import triton, valkey
from deploy.render import shares as shares_module
from deploy.render.shares import Share
from frontend.observability import build
from frontend.settings import Settings

COMPOSE_PARTS = ("frontend", "valkey", "postgresql")
KUBERNETES_PARTS = (*COMPOSE_PARTS, "watch")
PRE_STOP_S = 5
"""Kubernetes tells a pod to end and the balancers not to use it at the same time: the pod goes on for so long."""


def values(settings: Settings | None = None) -> dict[str, Any]:
    """By the names that stand in deploy/templates. Raises SharesError."""
    settings = settings or Settings()
    shares = shares_module.read()
    engine_exit_s = int(settings.engine.drain_timeout_s) + 5
    return {
        "settings": settings,
        "whole": shares_module.whole(settings),
        "compose": shares_module.divide(shares, settings, COMPOSE_PARTS),
        "kubernetes": shares_module.divide(shares, settings, KUBERNETES_PARTS),
        "beside": shares.beside,
        "images": {**shares.images, "frontend": f"{shares.images['frontend']}:{build.VERSION}"},
        "version": build.VERSION,
        "ports": shares.ports,
        "users": shares.users,
        "model": shares.model,
        "model_folder": shares.model.replace("/", "--"),
        "shared_memory_mib": shares.engine.shared_memory_mib,
        "scaling": shares.scaling,
        "slots": max(1, settings.engine.max_num_seqs // shares.scaling.most),
        "triton": {"off": triton.OFF, "restricted": f"{triton.RESTRICTED}:{triton.CLOSED}=closed"},
        "valkey": {"allowed": valkey.ALLOWED, "maxmemory": int(settings.memory.valkey)},
        "http": {
            "head_timeout_ms": launched_frontend.HEAD_TIMEOUT_MS,
            "buffer_bytes": launched_frontend.HTTP1_BUFFER_BYTES,
        },
        "seconds": {
            "drain": int(settings.http.drain_timeout_s),
            "pre_stop": PRE_STOP_S,
            "frontend_grace": int(settings.http.drain_timeout_s) + 5 + PRE_STOP_S,
            "engine_exit": engine_exit_s,
            "engine_grace": engine_exit_s + 10,
            "engine_start": int(settings.engine.start_timeout_s),
        },
    }


def cores(share: Share) -> str:
    """As Docker reads it: 0.25."""
    return f"{share.cpu_milli / 1000:.2f}"
