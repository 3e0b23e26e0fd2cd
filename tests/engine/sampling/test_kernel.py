"""The step's way through the kernel gives the tokens of XLA's way; here XLA stands in for it."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from engine.sampling import sampler as sampling
from engine.sampling.options import sampling_row, unpack_rows
from engine.sampling.params import SamplingParams
from engine.sampling.state import init_slots
from models.sharding import TENSOR
from pallas_kernels import Backend, draw
from tests.engine.sampling_batch import enter, ints
from tests.engine.sampling_reference import Sequence

V, R = 4096, 4
OPTIONS = (
    {"temperature": 0, "frequency_penalty": 2.0},
    {"top_k": 9, "top_p": 0.9},
    {"logit_bias": {7: 3.0}, "allowed_token_ids": [6, 7, 8]},
    {"min_tokens": 9, "repetition_penalty": 1.5},
)


def sampled(num_rows: int, mesh: Mesh | None, backend: Backend):
    batch = [
        Sequence(SamplingParams(**OPTIONS[i % 4]), output=[1, 2, 2], seed=i, stop_ids=[5])
        for i in range(num_rows)
    ]
    state, slots = init_slots(R, V), [i % 4 for i in range(num_rows)]
    for slot, sequence in zip(slots[:4], batch, strict=False):
        state = enter(state, slot, sequence)
    logits = np.random.default_rng(0).normal(0, 2, (num_rows, V)).astype(np.float32)
    packed = np.stack([sampling_row(s.params, seed=s.seed, prompt_len=1) for s in batch], 1)
    if mesh is not None:
        logits = jax.device_put(logits, NamedSharding(mesh, PartitionSpec(None, TENSOR)))
        state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))

    @jax.jit
    def run(logits, packed, slots, positions, targets, state):
        rows = unpack_rows(packed)
        return sampling.sample(logits, rows, slots, positions, targets, state, mesh, backend)

    positions, targets = ints(list(range(4, 4 + num_rows))), ints([-1] * num_rows)
    return run(logits, packed, ints(slots), positions, targets, state).tokens


@pytest.mark.parametrize("num_rows, devices", [(4, None), (4, 1), (8, 4), (3, 4)])
def test_both_ways_choose_the_same_tokens(monkeypatch, num_rows, devices) -> None:
    if jax.device_count() < (devices or 1):
        pytest.skip("needs four devices; JAX_NUM_CPU_DEVICES=4 makes them")
    calls = []

    def stand_in(*arguments, backend):
        calls.append(backend)
        return draw(*arguments, backend=Backend.XLA)

    monkeypatch.setattr(sampling, "draw", stand_in)
    mesh = devices and Mesh(np.array(jax.devices()[:devices]), (TENSOR,))
    found = sampled(num_rows, mesh, Backend.MOSAIC)
    assert set(calls) == {Backend.MOSAIC}
    np.testing.assert_array_equal(found, sampled(num_rows, None, Backend.XLA))
