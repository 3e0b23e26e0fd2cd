"""Embeddings of prompts on their way to the device (`--enable-prompt-embeds`).

    packed tokens   318  -2  -2  -2   17 ..      -2: the embedding that lies in this place
    given rows       .  e0  e1  e2    . ..       a buffer of the largest step's size

Owns that buffer's size and the program that writes into it, a piece at a time, between steps; a
step without such tokens costs nothing. What a prompt of embeddings is, is `prompt_embeds`'s.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from engine.compiling.shapes import Shapes
from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.scheduling.plan import Plan
from engine.vectors.prompt_embeds import Rows
from models.config.decoder import ModelConfig
from models.layers.given import unable

_PIECE = 256  # rows that travel together


@dataclass(frozen=True)
class GivenLayout:
    """A row for each token of the largest step."""

    num_rows: int
    size: int  # D
    dtype: DTypeLike

    def zeros(self) -> Float[Array, "E D"]:
        """As it is before the first step."""
        return jnp.zeros((self.num_rows, self.size), self.dtype)

    @property
    def nbytes(self) -> int:
        """On each device."""
        return self.num_rows * self.size * jnp.dtype(self.dtype).itemsize


def resolve_given(
    config: EngineConfig, model: ModelConfig, shapes: Shapes, dtype: DTypeLike
) -> GivenLayout | None:
    """None where prompts are tokens only.

    Raises:
        ConfigError: this model cannot do without tokens.
    """
    if not config.enable_prompt_embeds:
        return None
    why = unable(model)
    if why is not None:
        raise ConfigError(
            f"--enable-prompt-embeds cannot serve {model.architecture}, for {why}; leave it out."
        )
    return GivenLayout(shapes.mixed()[-1].tokens, model.hidden_size, jnp.dtype(dtype))


class GivenRows:
    """The program that writes into one buffer."""

    def __init__(self, layout: GivenLayout) -> None:
        self._piece = min(_PIECE, layout.num_rows), layout.size
        self._dtype = jnp.dtype(layout.dtype)
        self._write: Any = None  # compiled by `warm_up`

    def warm_up(self, rows: Any, sharding: NamedSharding) -> None:
        """Compile it; `rows` describes the buffer."""
        piece = jax.ShapeDtypeStruct(self._piece, self._dtype, sharding=sharding)
        place = jax.ShapeDtypeStruct((2,), np.int32, sharding=sharding)
        write = jax.jit(_write, donate_argnums=0, out_shardings=rows.sharding)
        self._write = write.lower(rows, piece, place).compile()

    def send(self, buffer: Float[Array, "E D"], plan: Plan) -> Float[Array, "E D"]:
        """`buffer`, which is donated, with the rows of the tokens that `plan` is to compute."""
        most = self._piece[0]
        for first, rows in _due(plan):
            for start in range(0, len(rows), most):
                part = rows[start : start + most]
                piece = np.zeros(self._piece, self._dtype)
                piece[: len(part)] = part
                buffer = self._write(buffer, piece, np.array([first + start, len(part)], np.int32))
        return buffer


def _due(plan: Plan) -> Iterator[tuple[int, Rows]]:
    """Which rows are computed, from which token of the step on."""
    for token, (request, count) in enumerate(zip(plan.decoding, plan.counts, strict=True)):
        if request.embeds is not None:  # of which only the last is due, if it is still
            start = request.num_computed - count
            if start < len(request.embeds):
                yield token, request.embeds.rows[start : start + 1]
    token = len(plan.decoding)
    for chunk in plan.chunks:
        embeds = chunk.request.embeds
        if embeds is not None and chunk.start < len(embeds):
            yield token, embeds.rows[chunk.start : chunk.start + chunk.count]
        token += chunk.count


def _write(
    buffer: Float[Array, "E D"], piece: Float[Array, "N D"], place: Int32[Array, " 2"]
) -> Float[Array, "E D"]:
    """The first `place[1]` rows of a piece from row `place[0]` on."""
    row = jnp.arange(piece.shape[0])
    target = jnp.where(row < place[1], place[0] + row, buffer.shape[0])
    return buffer.at[target].set(piece, mode="drop")
