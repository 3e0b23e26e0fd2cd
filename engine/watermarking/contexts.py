"""What the watermark draws by: the noise of key and context in place of the request's seed.

    key ─ threefry with each of the last W generated tokens ─ two words ─ stand for seed_high, _low

The sampler then draws as ever, in XLA or in the kernel: nothing there knows of this. A row keeps
its own seed where it has no whole context yet, so that equal prompts have different answers, and
where its context came before. Owns what each slot must remember for it.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int32, UInt32

from pallas_kernels import DrawRows
from pallas_kernels.sampling.noise import threefry

NO_TOKEN = -1


class Widths(NamedTuple):
    """Tokens that are a context, and tokens that a slot remembers."""

    context: int
    history: int


@partial(
    jax.tree_util.register_dataclass, data_fields=["keys", "history"], meta_fields=["context_width"]
)
@dataclass(frozen=True)
class Watermark:
    """R slots and the sink; a ring of H tokens each, in which position p is at p mod H."""

    keys: UInt32[Array, "R1 2"]
    history: Int32[Array, "R1 H"]  # -1 where nothing was generated
    context_width: int

    def remember(
        self,
        tokens: Int32[Array, " T"],
        slots: Int32[Array, " T"],
        positions: Int32[Array, " T"],
        ends: Int32[Array, " T"],
        is_output: Bool[Array, " T"],
    ) -> "Watermark":
        """Keep the generated tokens that enter the model in this step; `ends` is the position
        behind each one's row. Of a row longer than the ring only the last are written: no place is
        written twice."""
        num_slots, size = self.history.shape
        kept = is_output & (positions >= ends - size)
        slots = jnp.where(kept, slots, num_slots)
        history = self.history.at[slots, positions % size].set(tokens, mode="drop")
        return Watermark(self.keys, history, self.context_width)

    def keyed(self, rows: DrawRows, wanted: Bool[Array, " B"]) -> DrawRows:
        """`rows`, of which the `wanted` ones draw by key and context where they can."""
        context = self._context(rows)
        whole = wanted & jnp.all(context >= 0, axis=1)
        if self.history.shape[1] > self.context_width:
            whole &= ~lax.cond(
                jnp.any(whole), self._came_before, lambda rows, _: rows.slot < 0, rows, context
            )
        keys = self.keys[rows.slot]
        high, low = context_key((keys[:, 0], keys[:, 1]), context)
        return rows._replace(
            seed_high=jnp.where(whole, high, rows.seed_high),
            seed_low=jnp.where(whole, low, rows.seed_low),
            position=jnp.where(whole, 0, rows.position),
        )

    def _context(self, rows: DrawRows) -> Int32[Array, "B W"]:
        """The newest generated tokens of each row, -1 before the first."""
        positions = rows.position[:, None] + jnp.arange(-self.context_width, 0)
        return self.history[rows.slot[:, None], positions % self.history.shape[1]]

    def _came_before(self, rows: DrawRows, context: Int32[Array, "B W"]) -> Bool[Array, " B"]:
        """Whether a row's answer had this context earlier, as far back as is remembered.

        Contexts that begin before the ring's oldest token are no longer whole:

            W = 2, H = 5, position 12:  7  8  9 10 11    ends 8, 9 and 10 are looked at; 11 is
                                           .  .  .       the context itself
        """
        history = self.history[rows.slot]
        W, H = self.context_width, history.shape[1]
        same = jnp.ones(history.shape, bool)
        for back in range(W):
            same &= jnp.roll(history, back, axis=1) == context[:, W - 1 - back, None]
        age = (rows.position[:, None] - 1 - jnp.arange(H)) % H
        return jnp.any(same & (age >= 1) & (age <= H - W), axis=1)


def no_watermark(num_slots: int, widths: Widths) -> Watermark:
    """Of `num_slots` slots, and the sink, without keys."""
    rows = num_slots + 1
    history = jnp.full((rows, widths.history), NO_TOKEN, jnp.int32)
    return Watermark(jnp.zeros((rows, 2), jnp.uint32), history, widths.context)


def key_words(key: int) -> tuple[int, int]:
    """A secret of 64 bits as two words, the high one first."""
    return key >> 32, key & 0xFFFFFFFF


def context_key(
    key: tuple[UInt32[Array, " B"], UInt32[Array, " B"]], context: Int32[Array, "B W"]
) -> tuple[UInt32[Array, " B"], UInt32[Array, " B"]]:
    """Two words for each context, which say nothing of the key."""
    for token in context.astype(jnp.uint32).T:
        key = threefry(key, jnp.zeros_like(token), token)
    return key
