"""States of fixed size beside the pages: a slot of every layer that has one, for each request.

    slot   0 1 2 .. R - 1     the requests', as they have them everywhere else
           R                  padding's; nobody reads it
           R + 1 ..           snapshots, for prompts that begin alike: `state_snapshots.py`

A request's state begins at zero with its first token, or as a snapshot, so states need no
allocation, and a request that was preempted computes its own again. What moves pages about and
knows no states is refused here, by name.

Owns sizes and refusals. The states themselves are the step's.
"""

import logging
import math
from dataclasses import dataclass, field

import jax.numpy as jnp
import msgspec
from jax.sharding import Mesh
from jax.typing import DTypeLike

from engine.cache.state_snapshots import StateSnapshots
from engine.compiling.shapes import decode_rows
from engine.config import EngineConfig
from engine.errors import ConfigError
from models.config.decoder import ModelConfig
from models.layers.states import States

logger = logging.getLogger(__name__)
_MORE = 4  # snapshots than rows
_ROOM = 1 / 2  # of the memory, at most, for states where the number of rows is free


@dataclass(frozen=True)
class StateLayout:
    """Sizes of the arrays that hold the states of all layers."""

    num_layers: int
    num_slots: int  # of one layer, padding's and snapshots' included
    conv: tuple[int, int]  # W - 1, C
    scan: tuple[int, int, int] | None  # N, V, S
    dtype: DTypeLike = field(default=jnp.float32)  # of what the convolution keeps

    def zeros(self) -> States:
        """As they are before the first step."""
        rows = self.num_layers * self.num_slots
        conv = jnp.zeros((rows, *self.conv), self.dtype)
        return States(conv, jnp.zeros((rows, *self.scan), jnp.float32) if self.scan else None)

    @property
    def nbytes(self) -> int:
        """Of all slots in all layers, on each device."""
        conv = math.prod(self.conv) * jnp.dtype(self.dtype).itemsize
        scan = 4 * math.prod(self.scan) if self.scan else 0
        return self.num_layers * self.num_slots * (conv + scan)


def resolve_states(
    config: EngineConfig, model: ModelConfig, max_num_seqs: int, dtype: DTypeLike
) -> StateLayout | None:
    """The states of so many requests; None for a model that has none."""
    if model.mixer is None:
        return None
    conv = model.mixer.conv_width - 1, model.mixer.conv_channels
    slots = max_num_seqs + 1 + (max_num_seqs + _MORE if config.enable_prefix_caching else 0)
    return StateLayout(model.num_mixers, slots, conv, model.mixer.scan, jnp.dtype(dtype))


def fit_states(
    config: EngineConfig, model: ModelConfig, max_num_seqs: int, dtype: DTypeLike, room: int | None
) -> EngineConfig:
    """The settings, with fewer rows where nobody asked for a number and the states of the usual
    one take more than half of `room` bytes."""
    if model.mixer is None or config.max_num_seqs or room is None:
        return config
    fitting = [
        rows
        for rows in decode_rows(max_num_seqs)
        if (states := resolve_states(config, model, rows, dtype)) and states.nbytes <= room * _ROOM
    ]
    rows = max(fitting, default=1)
    if rows < max_num_seqs:
        logger.info("max_num_seqs is %d: the states of more would not fit", rows)
    return msgspec.structs.replace(config, max_num_seqs=rows)


def make_snapshots(states: StateLayout | None, max_num_seqs: int) -> StateSnapshots | None:
    """The slots that no request has; None if there are none."""
    first = max_num_seqs + 1
    if states is None or states.num_slots <= first:
        return None
    return StateSnapshots(first, states.num_slots - first)


def check_states(config: EngineConfig, model: ModelConfig, mesh: Mesh) -> None:
    """Say what a model with states does otherwise.

    Raises:
        ConfigError: a setting needs what a state cannot do.
    """
    if model.mixer is None:
        return
    if config.kv_offloading_size is not None:
        raise ConfigError(
            f"--kv-offloading-size keeps pages of the prefix cache, and the states of "
            f"{model.architecture} are in no page; leave it out."
        )
    if mesh.size > 1:
        logger.warning(
            "layers with a state are computed by each of the %d devices; attention and experts "
            "are divided", mesh.size,
        )  # fmt: skip
