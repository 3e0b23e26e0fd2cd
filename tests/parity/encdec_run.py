"""Runs a loaded model with an encoder as `paged.py` runs others: encoded once, in pages too."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from models.checkpoints.loading import LoadedModel
from models.layers.attention import AttentionBatch, EncodedRows
from tests.parity.paged import PAGES, ROWS, PagedRun

OWN_PAGES = 10  # of a row's pages; the others are its encoder's
PADDED = 48


class EncodedRun(PagedRun):
    """Rows that all read `source`."""

    def __init__(self, model: LoadedModel, source: list[int] | np.ndarray) -> None:
        super().__init__(model)
        tables, self.table = self.table[:, OWN_PAGES:], self.table[:, :OWN_PAGES]
        heard = isinstance(source, np.ndarray)
        length = len(source) // 2 if heard else len(source)
        self.encoded = EncodedRows(jnp.asarray(tables), jnp.full(ROWS, length, jnp.int32))
        tokens = source if heard else np.array(source + [0] * (PADDED - length), np.int32)
        layout = model.layout

        def encode(leaves, cache, tokens, encoded):
            return layout.unflatten(leaves).encode(tokens, encoded, cache, pages_per_layer=PAGES)

        run = jax.jit(encode, donate_argnums=1)
        for row in range(ROWS):
            one = EncodedRows(self.encoded.page_table[row][None], self.encoded.lengths[row][None])
            self.cache = run(model.leaves, self.cache, tokens, one)

    def _compiled(self, batch):
        def with_encoder(*arguments: Array) -> AttentionBatch:
            return replace(batch(*arguments), encoded=self.encoded)

        return super()._compiled(with_encoder)
