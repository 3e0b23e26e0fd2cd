"""A model onto the devices as an engine's settings say, at its start and again later.

What is read later must suit the programs that are compiled: the same configuration, for its numbers
are part of them, and arrays of the same shapes. Owns that comparison.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import zip_longest
from typing import Literal

import msgspec
from jax.sharding import Mesh
from jaxtyping import Array

from engine.adapters.loading import Adapters
from engine.config import EngineConfig
from models.checkpoints.loading import LoadedModel, Ready, load
from models.config.decoder import ModelConfig
from models.decoder import Decoder
from models.errors import CheckpointError
from models.flatten import Layout

_MAY_DIFFER = {"eos_token_ids", "decoder_prompt"}  # the engine goes on with those of its start


def read_model(config: EngineConfig, mesh: Mesh, ready: Ready | None = None) -> LoadedModel:
    """The model of these settings; raises ModelError."""
    return load(
        config.model, mesh, dtype=config.dtype, load_format=config.load_format,
        quantization=config.quantization, seed=config.seed,
        max_model_len=config.asked_model_len, hf_overrides=config.hf_overrides, ready=ready,
    )  # fmt: skip


class WeightReader:
    """Reads the weights of a running engine anew: those that it had last, or others like them."""

    def __init__(self, config: EngineConfig, model: LoadedModel, adapters: Adapters | None) -> None:
        self._config, self._adapters = config, adapters
        self._model = replace(model, leaves=())

    @property
    def mesh(self) -> Mesh:
        """Of the devices that have them."""
        return self._model.mesh

    def read_again(self) -> tuple[Array, ...]:
        """The leaves, as they are on the disk now; raises ModelError."""
        return self._read(self._config, lambda: None)

    def read_other(
        self, path: str, load_format: Literal["auto", "dummy"], make_room: Callable[[], None]
    ) -> tuple[Array, ...]:
        """Those of another checkpoint, or, without a path, of the last one; once it is known to
        fit, and before anything of it is read, `make_room` is called.

        Raises:
            ModelError: it cannot be read, or does not fit.
        """
        config = self._config
        if path:
            config = msgspec.structs.replace(config, model=path, load_format=load_format)
        leaves = self._read(config, make_room)
        self._config = config
        return leaves

    def _read(self, config: EngineConfig, make_room: Callable[[], None]) -> tuple[Array, ...]:
        def ready(found: ModelConfig, layout: Layout[Decoder]) -> None:
            _check_alike(config.model, self._model, found, layout)
            make_room()

        model = read_model(config, self._model.mesh, ready)
        return self._adapters.with_room(model) if self._adapters else model.leaves


def _check_alike(
    path: str, served: LoadedModel, found: ModelConfig, layout: Layout[Decoder]
) -> None:
    """Raise CheckpointError, naming the first difference, where compiled programs do not fit."""
    what = f"The weights of {path[:200]!r} do not fit what is served:"
    for field in fields(ModelConfig):
        new, old = getattr(found, field.name), getattr(served.config, field.name)
        if new != old and field.name not in _MAY_DIFFER:
            raise CheckpointError(
                f"{what} {field.name} is {str(new)[:80]}, not {str(old)[:80]}; start an engine of "
                "their own for them."
            )
    for new_leaf, old_leaf in zip_longest(layout.leaves, served.layout.leaves):
        if new_leaf != old_leaf:
            leaf = new_leaf or old_leaf
            raise CheckpointError(
                f"{what} {leaf.paths[0]} is stored or quantised otherwise; start an engine of "
                "their own for them."
            )
