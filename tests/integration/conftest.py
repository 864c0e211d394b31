"""The SDK as a stock client has it, on the session's real service."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.stack import API_KEY, Stack


@pytest.fixture
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    """Raises on every reply and chunk that is not what OpenAI specifies."""
    with openai.OpenAI(
        base_url=f"{stack.url}/v1", api_key=API_KEY, max_retries=0, timeout=120, _strict_response_validation=True
    ) as sdk:
        yield sdk
