"""The sampling options that a model's makers recommend, in its generation_config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import RequestError
from engine.sampling.params import SamplingParams
from models.checkpoints.checkpoint import GENERATION_CONFIG, read_generation_config
from models.errors import CheckpointError

RECOMMENDED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def sampling_defaults(
    generation_config: Mapping[str, Any], where: str = GENERATION_CONFIG
) -> dict[str, Any]:
    """Options to use where a request sets none; `where` is the file's path.

    Raises:
        CheckpointError: generation_config.json recommends something out of bounds.
    """
    found = {name: generation_config.get(name) for name in RECOMMENDED}
    options = {name: value for name, value in found.items() if value is not None}
    if generation_config.get("do_sample") is False:
        options["temperature"] = 0.0
    try:
        SamplingParams(**options)
    except RequestError as error:
        raise CheckpointError(f"{where}: {error}") from None
    return options


def default_sampling_params(folder: Path) -> SamplingParams:
    """Those of a folder or a GGUF file."""
    where = str(folder / GENERATION_CONFIG)
    return SamplingParams(**sampling_defaults(read_generation_config(folder), where))
