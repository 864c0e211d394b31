"""A conversation that is longer than the window, on the real engine: the short form of `python -m perf context`."""

from __future__ import annotations

import pytest

from perf import context
from tests.support.stack import API_KEY, Stack

pytestmark = pytest.mark.real

TURNS, WINDOW, ANSWER_TOKENS = 24, 1024, 8


def test_a_long_conversation_stays_within_the_window_and_in_the_cache(stack: Stack) -> None:
    """No turn is refused, prompts are bounded, turns come from the engine's prefix cache; beside it a client
    that drops one message per turn, whose prompts begin anew each time."""
    found = context.compare(f"{stack.url}/v1", API_KEY, TURNS, WINDOW, True, lambda _: None, ANSWER_TOKENS)
    print(context.report(found, TURNS, WINDOW))
    assert found.conversation.errors == 0
    assert found.conversation.most_prompt_tokens <= WINDOW
    assert found.conversation.trimmed
    assert found.client is not None
    # So small a window is trimmed every other turn, and turns that follow at once do not wait for the summary between them.
    assert found.conversation.late_cached_share > 0.1
    assert found.conversation.late_cached_share > 2 * found.client.late_cached_share
