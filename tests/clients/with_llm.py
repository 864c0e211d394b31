"""llm: the model comes from its own extra-openai-models.yaml, and `chain` runs the tool."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import llm

MODELS = """
- model_id: hermes-2
  model_name: hermes-2
  api_base: {base_url}
  api_key_name: hermes-2
  supports_tools: true
  supports_schema: true
"""


def get_weather(city: str) -> str:
    """The weather in a city."""
    return {"Paris": "22 degrees"}[city]


def main(base_url: str, api_key: str) -> None:
    Path(llm.user_dir() / "extra-openai-models.yaml").write_text(MODELS.format(base_url=base_url))
    model = llm.get_model("hermes-2")
    model.key = api_key
    chain = model.chain("What is the weather in Paris?", tools=[get_weather])
    replies = list(chain.responses())
    result = {
        "tools": {
            "calls": [call.arguments["city"] for reply in replies for call in reply.tool_calls()],
            "answer": replies[-1].text(),
        },
        "stream": list(model.prompt("Tell me a story.", stream=True)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
