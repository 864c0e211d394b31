"""A model in float32 without vLLM, the reference for its qualities. Needs .venv-engine; prompts from standard input."""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModelForCausalLM

ROWS = 64
"""Positions whose logits are held at once: 49,152 of them are 200 kB."""


def main(folder: str) -> None:
    """Input: a JSON list of lists of token ids. Output: the same object as quality_vllm.Engine.score."""
    prompts: list[list[int]] = json.load(sys.stdin)
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses: list[float] = []
    tops: list[int] = []
    with torch.inference_mode():
        for ids in prompts:
            given = torch.tensor([ids])
            states = model.model(given).last_hidden_state[0, :-1]
            for at in range(0, len(states), ROWS):
                logs = torch.log_softmax(model.lm_head(states[at : at + ROWS]), dim=-1)
                wanted = given[0, at + 1 : at + 1 + len(logs), None]
                losses += (-logs.gather(1, wanted)[:, 0]).tolist()
                tops += logs.argmax(dim=-1).tolist()
    json.dump({"losses": losses, "tops": tops}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1])
