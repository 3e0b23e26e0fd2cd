"""Runs a loaded model on one token sequence, through the paged cache, in the ways an engine would.

    step     0         1         2 .. 17   18      19 .. 34  35          36 .. 65
    row 0    prompt    .         a token   a token a token   a token     a token
    row 1    7 of it   the rest  a token   a token a token   a token     a token
    row 2    .         5 tokens  a token   .       a token   11 tokens   a token

Row 2 is another length behind the others, waits for a step, and ends in step 34: what begins in 35
has its slot and its pages, in another order. Owns this order and the two compiled steps. Knows
nothing of what the answers should be.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from models.checkpoints.loading import LoadedModel, load
from models.config.decoder import ModelConfig
from models.layers.attention import AttentionBatch, KVCache, decode_batch, mixed_batch
from models.layers.states import States, state_rows
from models.pool import make_pool
from models.sharding import make_mesh, named_sharding
from pallas_kernels import Backend
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.case import Case
from tests.parity.goldens import Golden
from tests.parity.weights import tensor

ROWS = 3
CHUNK = 7  # tokens of row 1's first chunk
BEHIND, LATER = 5, 11  # those that row 2 begins with, and those that its successor does
TOKENS = 48  # of a prefill step: the longest prompt and a short chunk fit
PAGE_SIZE = 16
PAGES_A_ROW = 16
PAGES = 1 + ROWS * PAGES_A_ROW
SLOTS = (2, 0, 1)  # of the rows' states
WAYS = ("one piece", "chunks", "a row behind", "a row in its place")

Counts = tuple[int, int, int]  # tokens that the rows are given in a step


def schedule(prompt: int, steps: int) -> list[Counts]:
    """What the rows are given: the prompt, and `steps` tokens that follow it."""
    short, half = min(CHUNK, prompt - 1), [(1, 1, 1)] * (steps // 4)
    decodes = [*half, (1, 1, 0), *half, (1, 1, LATER), *[(1, 1, 1)] * steps]
    return [(prompt, short, 0), (0, prompt - short, BEHIND), *decodes[:steps]]


def write_case(folder: Path, case: Case, golden: Golden) -> None:
    """Write the checkpoint folder of a case."""
    tensors = {name: tensor(case.seed, name, shape, case.spread) for name, shape in golden.tensors}
    write_checkpoint(folder, case.config, tensors)


def load_case(folder: Path, case: Case, shards: int = 1) -> LoadedModel:
    """Load it in float32 on `shards` devices."""
    mesh = make_mesh(shards)
    return load(folder, mesh, dtype="float32", max_model_len=case.context)


class PagedRun:
    """Three rows of one model, in float32."""

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

    def follow(self, tokens: list[int], prompt: int) -> dict[str, np.ndarray]:
        """Logits [n, V] of the first n of `tokens`, of which `prompt` come first: for each way."""
        rows: list[list[np.ndarray]] = [[] for _ in WAYS]
        live = [0, 1, 2]
        for counts in schedule(prompt, len(tokens) - prompt):
            if counts[2] == LATER:
                live[2] = 3
                self.table = np.stack([*self.table[:2], np.roll(self.table[2], -1)])
            starts = [len(rows[row]) for row in live]
            given = [tokens[at : at + n] for at, n in zip(starts, counts, strict=True)]
            step = self._mixed if max(counts) > 1 else self._decode
            for row, logits in zip(live, step(given, starts), strict=True):
                rows[row].extend(logits)
        return {way: np.stack(row) for way, row in zip(WAYS, rows, strict=True) if row}

    def _decode(self, given: list[list[int]], starts: list[int]) -> list[np.ndarray]:
        """Logits [count, V] of each row, which is given one token at most."""
        live = np.array([len(tokens) for tokens in given], bool)
        tokens = np.array([sum(tokens) for tokens in given], np.int32)
        positions = np.where(live, starts, 0).astype(np.int32)
        logits, self.cache = self._decode_step(
            self.model.leaves, self.cache, tokens, positions, self.table, live
        )
        answers = np.asarray(logits)  # or steps queue up, and sums over devices wait for each other
        return [one[None][: len(tokens)] for one, tokens in zip(answers, given, strict=True)]

    def _mixed(self, given: list[list[int]], starts: list[int]) -> list[np.ndarray]:
        """Likewise, of any number, which continue at the positions `starts`."""
        tokens, positions = np.zeros(TOKENS, np.int32), np.zeros(TOKENS, np.int32)
        counts = np.array([len(tokens) for tokens in given], np.int32)
        ends = np.cumsum(counts, dtype=np.int32)
        for row, start, count, end in zip(given, starts, counts, ends, strict=True):
            tokens[end - count : end] = row
            positions[end - count : end] = range(start, start + count)
        logits, self.cache = self._mixed_step(
            self.model.leaves, self.cache, tokens, positions, self.table, ends - counts, counts
        )
        return np.split(np.asarray(logits)[: ends[-1]], ends[:-1])

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
