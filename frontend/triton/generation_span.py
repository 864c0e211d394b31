"""The span of a generation, from when the engine is asked to its last token; the engine's own is below it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from frontend.domain.generation import GenerationDelta, GenerationRequest
from frontend.observability import tracing

Generate = Callable[[GenerationRequest], AsyncGenerator[GenerationDelta, None]]


async def traced(request: GenerationRequest, generate: Generate) -> AsyncGenerator[GenerationDelta, None]:
    """The same generation. Its first token is an event of the span."""
    span = tracing.start("generate", calls=True)
    if span.traceparent is not None:
        request = msgspec.structs.replace(request, traceparent=span.traceparent)
    tokens, cached_tokens, reasons = 0, 0, []
    try:
        async with aclosing(generate(request)) as deltas:
            async for delta in deltas:
                if span.recording:
                    if not tokens:
                        span.event("first_token")
                    tokens += sum(choice.num_tokens for choice in delta.choices)
                    cached_tokens = max(cached_tokens, delta.num_cached_tokens)
                    reasons += [choice.finish_reason for choice in delta.choices if choice.finish_reason is not None]
                yield delta
    except (Exception, asyncio.CancelledError, GeneratorExit) as exc:
        span.fail(exc)
        raise
    finally:
        span.set("gen_ai.request.choice.count", request.sampling.n)
        span.set("gen_ai.request.max_tokens", request.sampling.max_tokens or 0)
        span.set("gen_ai.request.stream", request.stream)
        span.set("gen_ai.usage.input_tokens", len(request.prompt_ids))
        span.set("gen_ai.usage.cache_read.input_tokens", cached_tokens)
        span.set("gen_ai.usage.output_tokens", tokens)
        span.set("gen_ai.response.finish_reasons", reasons)
        span.end()
