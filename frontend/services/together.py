"""Several generations as one: their choices numbered through, their pieces as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from frontend.domain.generation import GenerationDelta

Deltas = AsyncGenerator[GenerationDelta, None]


async def together(generations: Sequence[Deltas], n: int, at_once: int) -> Deltas:
    """`generations`: each of n choices; `at_once` of them run at the same time. Cached tokens of their prompts add up. The first
    failure ends them all."""
    pieces: asyncio.Queue[tuple[int, GenerationDelta | Exception | None]] = asyncio.Queue(maxsize=len(generations))

    free = asyncio.Semaphore(at_once)

    async def pump(number: int, deltas: Deltas) -> None:
        try:
            async with free, aclosing(deltas):
                async for delta in deltas:
                    await pieces.put((number, delta))
            await pieces.put((number, None))
        except Exception as exc:
            await pieces.put((number, exc))

    pumps = [asyncio.create_task(pump(number, deltas)) for number, deltas in enumerate(generations)]
    cached = [0] * len(generations)
    running = len(pumps)
    try:
        while running:
            number, piece = await pieces.get()
            if isinstance(piece, Exception):
                raise piece
            if piece is None:
                running -= 1
                continue
            cached[number] = max(cached[number], piece.num_cached_tokens)
            choices = [msgspec.structs.replace(choice, index=number * n + choice.index) for choice in piece.choices]
            yield GenerationDelta(choices, sum(cached))
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.wait(pumps)
