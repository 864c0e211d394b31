"""The engine alone, asked by lines of JSON: `{"prompt_ids", "max_tokens"}` in, `{"ttft_s", "total_s"}` out, both in seconds.

Needs .venv-engine, and our launcher's environment for the engine; its argument is a JSON object of AsyncEngineArgs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from hermes2_backend.generation import Generation
from hermes2_backend.vllm_engine import VllmEngine


async def serve(arguments: dict[str, object]) -> None:
    engine = VllmEngine(arguments)
    await engine.warm_up()
    print("ready", flush=True)
    for number in range(sys.maxsize):
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            break
        given = json.loads(line)
        sampling = {"max_tokens": given["max_tokens"], "ignore_eos": True, "temperature": 0.7}
        asked = Generation(given["prompt_ids"], None, sampling, True, False, frozenset(), cache_salt="bare")
        first_s, begin = 0.0, time.perf_counter()
        async for _ in engine.generate(asked, f"bare-{number}"):
            first_s = first_s or time.perf_counter() - begin
        print(json.dumps({"ttft_s": first_s, "total_s": time.perf_counter() - begin}), flush=True)
    engine.close()


if __name__ == "__main__":
    asyncio.run(serve(json.loads(sys.argv[1])))
