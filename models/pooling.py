"""A model that gives one vector a sequence: its body, which states are pooled, and its head.

    hidden states ─ CLS, LAST or MEAN ─ [head] ─ a vector, or a score a class
    hidden states ─ ALL or STEP ─ [head] ─ the same of each token, or of those that end a step

Owns the pooling and the pair of body and head. What is done with a vector afterwards (its length,
its probabilities) is not part of the model. B rows, S tokens of a row, T tokens of packed rows.
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int32

from models.checkpoints.sentence_transformers import Activation, Pooling
from models.encoder import Classifier

_PART = 256  # rows whose logits are there at a time
PER_TOKEN: tuple[Pooling, ...] = ("ALL", "STEP")
Body = TypeVar("Body", bound=nnx.Module)


class PoolingModel(nnx.Module, Generic[Body]):
    """A body that gives hidden states, and the head of a classifier.

    With `returned`, the classes are those tokens of a decoder's vocabulary, or those of the head.
    """

    def __init__(self, body: Body, head: Classifier | None, returned: tuple[int, ...] = ()):
        self.body = body
        self.head = head
        self.returned = returned

    def finish(self, pooled: Float[Array, "B D"]) -> Float32[Array, "B W"]:
        """The vector, or the scores of the classes, in float32."""
        if self.returned and self.head is None:
            return self._some_logits(pooled)
        scores = pooled if self.head is None else self.head(pooled)
        if self.returned:
            scores = scores[:, np.asarray(self.returned)]
        return scores.astype(jnp.float32)

    def _some_logits(self, pooled: Float[Array, "B D"]) -> Float32[Array, "B W"]:
        """In parts: those of a whole step's tokens would be gigabytes."""
        body: Any = self.body
        rows, width = pooled.shape
        part = min(rows, _PART)
        parts = jnp.pad(pooled, ((0, -rows % part), (0, 0))).reshape(-1, part, width)
        found: Array = jax.lax.map(
            lambda some: body.logits(some)[:, np.asarray(self.returned)], parts
        )
        return found.reshape(-1, len(self.returned))[:rows]


@dataclass(frozen=True)
class PoolingSpec:
    """What a model's vectors are, and what callers may ask for.

    Of the pooling "STEP" the vectors are those of the tokens `step_tag_id`, or of all without one.
    """

    task: Literal["embed", "classify"]
    pooling: Pooling
    activation: Activation
    use_activation: bool  # where a request does not say
    labels: tuple[str, ...] = ()  # of the classes
    matryoshka: bool = False  # the beginning of a vector is one, too
    dimensions: tuple[int, ...] = ()  # of beginnings; none are named where all are
    lower_case: bool = False  # texts are to be lowered
    step_tag_id: int | None = None

    @property
    def per_token(self) -> bool:
        """Whether a sequence has many vectors."""
        return self.pooling in PER_TOKEN


def pool_rows(
    hidden: Float[Array, "B S D"], lengths: Int32[Array, " B"], pooling: Pooling
) -> Float[Array, "B D"] | Float[Array, "B*S D"]:
    """One state a row, of padded rows, or all of them; means are taken in float32.

    Rows of no token are finite.
    """
    if pooling in PER_TOKEN:
        return hidden.reshape(-1, hidden.shape[-1])
    if pooling == "CLS":
        return hidden[:, 0]
    if pooling == "LAST":
        last = jnp.maximum(lengths - 1, 0)
        return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    alive = jnp.arange(hidden.shape[1]) < lengths[:, None]  # [B, S]
    total = jnp.where(alive[..., None], hidden.astype(jnp.float32), 0).sum(1)
    return (total / jnp.maximum(lengths, 1)[:, None]).astype(hidden.dtype)


def pool_packed(
    hidden: Float[Array, "T D"],
    row: Int32[Array, " T"],
    start: Int32[Array, " B"],
    count: Int32[Array, " B"],
    pooling: Pooling,
) -> Float[Array, "B D"] | Float[Array, "T D"]:
    """The same of rows that follow each other; `row` is B for padding."""
    if pooling in PER_TOKEN:
        return hidden
    if pooling == "MEAN":
        total = jnp.zeros((start.shape[0], hidden.shape[1]), jnp.float32)
        total = total.at[row].add(hidden.astype(jnp.float32), mode="drop")
        return (total / jnp.maximum(count, 1)[:, None]).astype(hidden.dtype)
    place = start if pooling == "CLS" else start + jnp.maximum(count - 1, 0)
    return hidden[jnp.minimum(place, hidden.shape[0] - 1)]
