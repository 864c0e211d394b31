"""Writes a GGUF model as safetensors with its tokenizer. Runs in the engine's environment, as a script.

    python convert_gguf.py SOURCE.gguf TARGET_FOLDER

transformers loads a GGUF file packed by default; only dequantised weights can be saved in a form that vLLM takes.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(source: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
