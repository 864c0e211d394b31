"""Fetches a model from the Hugging Face hub. Runs in the engine's environment, as a script.

python download_model.py MODEL_ID TARGET_FOLDER
"""

import sys

from huggingface_hub import snapshot_download


def main(model_id: str, target: str) -> None:
    snapshot_download(model_id, local_dir=target, allow_patterns=["*.safetensors", "*.json", "*.jinja"])


if __name__ == "__main__":
    main(*sys.argv[1:])
