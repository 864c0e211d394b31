"""Reads the `parameters` of config.pbtxt: everything about the engine that may differ between two machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields


@dataclass(frozen=True, slots=True)
class BackendConfig:
    """Each field is a parameter of the same name; `vllm.<name>` are those of vLLM's AsyncEngineArgs."""

    engine: str = "vllm"
    """vllm, or scripted (no model: tests of speed, faults and clients)."""
    vllm: Mapping[str, object] = field(default_factory=dict)
    scripted_token_interval_ms: float = 5.0
    scripted_replies: str = ""
    """A file of rules for the scripted engine (scripted_replies.py); empty: it repeats its fixed text."""
    send_cost_us: float = 250.0
    """CPU that one response costs in stub, server and client together."""
    letter_cost_us: float = 100.0
    """CPU that each stream costs the client in a response that several share (mailbox.py)."""
    send_share: float = 0.05
    """Share of one core that may be spent on sending while streams run."""
    max_hold_ms: float = 250.0
    """The longest a delta waits for company."""
    poll_interval_ms: float = 50.0
    """How often each open request is asked whether its client has left."""
    health_timeout_s: float = 5.0
    """How long the engine's loop may take to answer a health probe."""
    drain_timeout_s: float = 30.0
    """How long unloading waits for running requests before it aborts them."""
    warm_up: bool = True
    required_numpy: str = ""
    """The exact numpy version that this Triton's Python stub can read, if it cares."""


def parse(parameters: Mapping[str, Mapping[str, str]]) -> BackendConfig:
    """`parameters` as Triton hands them over: {name: {"string_value": text}}. Raises ValueError naming the parameter."""
    known = {f.name: f.type for f in fields(BackendConfig) if f.name != "vllm"}
    values: dict[str, object] = {}
    vllm: dict[str, object] = {}
    for name, holder in parameters.items():
        text = holder["string_value"]
        if name.startswith("vllm."):
            vllm[name.removeprefix("vllm.")] = literal(text)
        elif name not in known:
            raise ValueError(f"config.pbtxt: unknown parameter {name}")
        else:
            values[name] = checked(name, text, str(known[name]))
    config = BackendConfig(vllm=vllm, **values)  # type: ignore[arg-type]  # checked above, field by field
    if config.engine not in ("vllm", "scripted"):
        raise ValueError(f"config.pbtxt: engine must be vllm or scripted, not {config.engine}")
    return config


def checked(name: str, text: str, type_name: str) -> object:
    value = text if type_name == "str" else literal(text)
    if type_name == "float" and isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    if type_name in ("str", "bool") and type(value).__name__ == type_name:
        return value
    raise ValueError(f"config.pbtxt: {name} must be a {type_name}, not {text!r}")


def literal(text: str) -> object:
    """A JSON literal where the text is one, else the text: 8192, true, {"level": 0}, bfloat16."""
    try:
        return json.loads(text)
    except ValueError:
        return text
