"""Where the model of a configuration lies, which is found out once and first of all.

Imports no JAX: the HTTP front asks, and the engine is told a path.
"""

from pathlib import Path

import msgspec

from engine.config import EngineConfig
from engine.errors import ConfigError
from models.checkpoints.checkpoint import find_folder
from models.checkpoints.hub import fetch, fetch_adapter, is_hub_name


def located(config: EngineConfig) -> EngineConfig:
    """The same settings with local paths for model, tokenizer and adapters, downloaded if they are
    names on the hub.

    Raises:
        HubError: it cannot be had from there.
        ConfigError: a revision was asked for of what is no name on the hub.
    """
    if config.tokenizer is not None and is_hub_name(config.tokenizer):
        found = fetch(config.tokenizer, download_dir=config.download_dir, weights=False)
        config = msgspec.structs.replace(config, tokenizer=str(found))
    adapters = tuple(
        msgspec.structs.replace(lora, lora_path=adapter_path(lora.lora_path, config.download_dir))
        for lora in config.lora_modules
    )
    config = msgspec.structs.replace(config, lora_modules=adapters)
    if is_hub_name(config.model):
        path = fetch(
            config.model,
            revision=config.revision,
            download_dir=config.download_dir,
            weights=config.load_format != "dummy",
        )
        return msgspec.structs.replace(config, model=str(path), revision=None)
    if config.revision is not None:
        raise ConfigError(
            f"--revision is for models on the Hugging Face hub, and {config.model!r} is a local "
            f"one; leave it out."
        )
    return config


def adapter_path(path: str, download_dir: str | None = None) -> str:
    """Where an adapter lies, which is downloaded if `path` is a name on the hub; raises
    HubError."""
    return str(fetch_adapter(path, download_dir)) if is_hub_name(path) else path


def tokenizer_folder(config: EngineConfig) -> Path:
    """Where the tokenizer of `located` settings lies; raises CheckpointError."""
    return find_folder(config.tokenizer or config.model)
