"""Log probabilities of generated tokens on the wire, the same in chats and responses."""

from __future__ import annotations

import msgspec

from frontend.api.generations import shown
from frontend.domain.generation import TokenLogprobs
from frontend.domain.hermes.encoder import Encoder


class TopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


def token_logprob(position: TokenLogprobs, encoder: Encoder) -> TokenLogprob:
    raw = encoder.token_bytes(position.sampled.token_id)
    top = []
    for candidate in position.top:
        piece = encoder.token_bytes(candidate.token_id)
        top.append(TopLogprob(shown(piece), candidate.logprob, list(piece)))
    return TokenLogprob(shown(raw), position.sampled.logprob, list(raw), top)
