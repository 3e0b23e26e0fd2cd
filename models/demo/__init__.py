"""The demo model: a tiny Llama-architecture chat model that travels with the engine.

This file owns where the model lies and nothing else; how it was made is in the modules beside
it (`train.py` first), what it can and cannot do is in `README.md`.
"""

from pathlib import Path

DEMO_FOLDER: Path = Path(__file__).resolve().parent
"""Folder of the demo checkpoint in plain Hugging Face layout: `config.json`,
`generation_config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json`."""
