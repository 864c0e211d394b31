"""How much of a prompt is for what, and where history is cut. Numbers only: knows neither items nor ids.

History is cut in blocks: nothing is left out until it does not fit, and then so much that it does not happen again soon. A
cut in every turn would change the prefix of every prompt, and the engine's prefix cache would never hit: .11 of the
prompts' tokens came from it instead of .89 (8k window, one message dropped per turn; RETRIEVAL.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from frontend import settings
from frontend.domain.context import ContextTask
from frontend.domain.errors import ContextLengthExceeded


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    """History is cut where the prompt would be longer: it keeps the answer's reserve free, if that is possible."""
    most_tokens: int
    """A prompt that is still longer when all is cut that may be cut cannot be answered."""


def budget(task: ContextTask, limits: settings.ContextSettings) -> Budget:
    """A request that says how long its answer may be gets that; otherwise the reserve is a wish, and one token a must."""
    window = task.window_tokens
    if task.max_output_tokens is not None:
        soft = hard = window - task.max_output_tokens
    else:
        reserve = min(limits.reserve_tokens, window // 4, task.profile.max_tokens or window)
        soft, hard = window - reserve, window - 1
    if task.switches.budget_tokens is not None:
        soft, hard = min(soft, task.switches.budget_tokens), min(hard, task.switches.budget_tokens)
    return Budget(prompt_tokens=soft, most_tokens=hard)


def stay(newest: Sequence[int], room: int, keep_share: float) -> int:
    """How many exchanges stay if something must go: as many as fill `keep_share` of the room; the newest if it fits at all.

    `newest`: their tokens, the newest first.
    """
    return max(that_fit(newest, int(room * keep_share)), that_fit(newest[:1], room))


class Shares(msgspec.Struct, frozen=True, kw_only=True):
    """What is done between the turns when history fills so much of its room."""

    write: float
    """The summary for the next cut is written, which takes longest."""
    cut: float


def shares(limits: settings.ContextSettings, *, unsummarised: bool) -> Shares:
    """`unsummarised`: a turn had to cut, and what it left out is in no summary; then both come sooner."""
    keep, ahead = limits.keep_share, limits.trim_ahead_share
    between = (keep + ahead) / 2
    return Shares(write=keep, cut=between) if unsummarised else Shares(write=between, cut=ahead)


def that_fit(newest: Sequence[int], tokens: int) -> int:
    """How many of them are `tokens` at most."""
    for count, exchange in enumerate(newest):
        tokens -= exchange
        if tokens < 0:
            return count
    return len(newest)


def answer_tokens(task: ContextTask, prompt_tokens: int) -> int:
    """The longest answer that the request, its profile and the window allow."""
    left = task.window_tokens - prompt_tokens
    return task.max_output_tokens or min(task.profile.max_tokens or left, left)


def too_long(task: ContextTask, prompt_tokens: int) -> ContextLengthExceeded:
    window, answer = task.window_tokens, task.max_output_tokens or 1
    if task.switches.budget_tokens is not None and prompt_tokens + answer <= window:
        limit = f"This conversation's budget is {task.switches.budget_tokens} tokens of a prompt."
    else:
        limit = f"This model's maximum context length is {window} tokens."
    return ContextLengthExceeded(
        f"{limit} However, you requested {prompt_tokens + answer} tokens ({prompt_tokens} in the {task.input_param},"
        f" {answer} in the completion). Please reduce the length of either.",
        param=task.input_param,
    )
