"""Runs a loaded model on one token sequence, through the paged cache, in the ways an engine would.

    row 0   whole prompt in one piece          then 64 tokens, one a step
    row 1   prompt in a short and a long chunk   the same
    row 2   never lives                          never lives

Owns the two compiled steps. Knows nothing of what the answers should be.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from models.attention import AttentionBatch, KVCache, decode_batch, mixed_batch
from models.config import ModelConfig
from models.loading import LoadedModel, load
from models.pool import make_pool
from models.sharding import make_mesh, named_sharding
from models.states import States, state_rows
from pallas_kernels import Backend
from tests.models.safetensors_files import write_checkpoint
from tests.parity.case import Case
from tests.parity.goldens import Golden
from tests.parity.weights import tensor

ROWS = 3
CHUNK = 7  # tokens of row 1's first chunk
TOKENS = 48  # of a prefill step: the longest prompt and a short chunk fit
PAGE_SIZE = 16
PAGES_A_ROW = 16
PAGES = 1 + ROWS * PAGES_A_ROW
SLOTS = (2, 0, 1)  # of the rows' states


def write_case(folder: Path, case: Case, golden: Golden) -> None:
    """Write the checkpoint folder of a case."""
    tensors = {name: tensor(case.seed, name, shape, case.spread) for name, shape in golden.tensors}
    write_checkpoint(folder, case.config, tensors)


def load_case(folder: Path, case: Case, shards: int = 1) -> LoadedModel:
    """Load it in float32 on `shards` devices."""
    mesh = make_mesh(shards)
    return load(folder, mesh, dtype="float32", max_model_len=case.context)


class PagedRun:
    """Two rows of one model; every method returns float32 logits of the tokens it was given."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        pool = make_pool(model.config, model.mesh.size, Backend.XLA)
        shape = (pool.rows * PAGES, pool.heads, PAGE_SIZE, pool.head_dim)
        sharding = named_sharding(model.mesh, (None, "heads", None, None))

        def full(width: int) -> Array:
            # not zeros: a slot that counts before it was written shows
            return jax.device_put(np.full((*shape[:3], width), 100, np.float32), sharding)

        keys, states, latent = full(shape[3]), _states(model.config), model.config.latent
        values = full(shape[3]) if latent is None else None
        index = full(latent.index.dim) if latent is not None and latent.index is not None else None
        self.cache = KVCache(keys, values, states=states, index_keys=index)
        pages = np.random.default_rng(0).permutation(np.arange(1, PAGES))
        self.table = pages.reshape(ROWS, PAGES_A_ROW).astype(np.int32)

    def prefill(self, prompt: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Logits [prompt, V] of row 0, and of row 1."""
        whole, short = len(prompt), min(CHUNK, len(prompt) - 1)
        first = self._mixed(prompt, prompt[:short], 0)
        second = self._mixed([], prompt[short:], short)
        parts = first[whole : whole + short], second[: whole - short]
        return first[:whole], np.concatenate(parts)

    def decode(self, token: int, position: int) -> np.ndarray:
        """Logits [2, V] of both rows, given the same token at the same position."""
        tokens = np.array([token, token, 0], np.int32)
        positions = np.array([position, position, 0], np.int32)
        live = np.array([True, True, False])
        logits, self.cache = self._decode_step(
            self.model.leaves, self.cache, tokens, positions, self.table, live
        )
        return np.asarray(logits)[:2]

    def _mixed(self, first: list[int], second: list[int], start: int) -> np.ndarray:
        """One step over row 0's tokens from position 0 and row 1's from position `start`."""
        tokens, positions = np.zeros(TOKENS, np.int32), np.zeros(TOKENS, np.int32)
        used = len(first) + len(second)
        tokens[:used] = first + second
        positions[:used] = [*range(len(first)), *range(start, start + len(second))]
        starts = np.array([0, len(first), used], np.int32)
        counts = np.array([len(first), len(second), 0], np.int32)
        logits, self.cache = self._mixed_step(
            self.model.leaves, self.cache, tokens, positions, self.table, starts, counts
        )
        return np.asarray(logits)

    @cached_property
    def _mixed_step(self) -> Callable[..., tuple[Array, KVCache]]:
        def batch(positions: Array, table: Array, starts: Array, counts: Array) -> AttentionBatch:
            mixed = mixed_batch(table, starts, counts, positions, PAGES, self.model.mesh)
            return self._stated(mixed, starts, counts)

        return self._compiled(batch)

    @cached_property
    def _decode_step(self) -> Callable[..., tuple[Array, KVCache]]:
        def batch(positions: Array, table: Array, live: Array) -> AttentionBatch:
            decoding = decode_batch(table, positions, live, PAGES, self.model.mesh)
            return self._stated(decoding, jnp.arange(ROWS), live.astype(jnp.int32))

        return self._compiled(batch)

    def _stated(self, batch: AttentionBatch, starts: Array, counts: Array) -> AttentionBatch:
        """With the slots that rows have, if there are states."""
        if self.model.config.mixer is None:
            return batch
        rows = state_rows(starts, counts, jnp.asarray(SLOTS), batch.positions, len(SLOTS) + 1)
        return replace(batch, states=rows)

    def _compiled(
        self, batch: Callable[..., AttentionBatch]
    ) -> Callable[..., tuple[Array, KVCache]]:
        layout = self.model.layout

        def step(leaves, cache, tokens, positions, *rows):
            decoder = layout.unflatten(leaves)
            hidden, cache = decoder(tokens, positions, batch(positions, *rows), cache)
            return decoder.logits(hidden), cache

        # what is compared is arithmetic: without LLVM's passes it takes two thirds of the time
        options = {"xla_backend_optimization_level": 0}
        return jax.jit(step, donate_argnums=1, compiler_options=options)


def _states(config: ModelConfig) -> States | None:
    """A slot more than rows; not zeros, for a row that begins reads none of it."""
    if config.mixer is None:
        return None
    rows, mixer = config.num_mixers * (len(SLOTS) + 1), config.mixer
    conv = jnp.full((rows, mixer.conv_width - 1, mixer.conv_channels), 100, jnp.float32)
    return States(conv, jnp.full((rows, *mixer.scan), 100, jnp.float32) if mixer.scan else None)
