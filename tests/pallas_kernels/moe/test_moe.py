"""Routing, sorting and the experts' products equal their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.errors import KernelError
from pallas_kernels.moe import experts, route
from pallas_kernels.moe.reference import experts_reference
from pallas_kernels.moe.tiles import num_tiles, sort_into_tiles


def normal(*shape, dtype=jnp.float32, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(values / np.sqrt(shape[-2] if len(shape) == 3 else 1), dtype)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize("kept_groups", [1, 2, 4])
def test_routing(score, renormalize, kept_groups):
    logits, bias = normal(5, 8), normal(8, seed=1)
    weights, chosen = route(
        logits, 2, score=score, renormalize=renormalize, bias=bias,
        groups=4, kept_groups=kept_groups, scale=2.0,
    )  # fmt: skip
    exp = np.exp(np.asarray(logits, np.float64))
    scores = exp / (exp.sum(-1, keepdims=True) if score == "softmax" else 1 + exp)
    for t in range(5):
        ranked = scores[t] + np.asarray(bias)
        sums = np.sort(ranked.reshape(4, 2))[:, -2:].sum(-1)
        kept = np.argsort(-sums)[:kept_groups]
        best = sorted((e for e in range(8) if e // 2 in kept), key=lambda e: -ranked[e])[:2]
        assert chosen[t].tolist() == best
        want = scores[t, best] / (scores[t, best].sum() if renormalize else 1)
        np.testing.assert_allclose(weights[t], 2 * want, rtol=1e-5)


def test_renormalised_is_a_softmax_of_the_chosen():
    logits = normal(5, 8)
    weights, chosen = route(logits, 3)
    want = jax.nn.softmax(jnp.take_along_axis(logits, chosen, axis=1), axis=-1)
    np.testing.assert_allclose(weights, want, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 9), st.integers(1, 5), st.sampled_from([1, 4]))
def test_every_choice_lies_in_a_tile_of_its_expert(data, T, E, Q):
    """Experts -1 and E are on other devices."""
    k = data.draw(st.integers(1, E))
    ids = st.permutations(range(-1, E + 1)).map(lambda order: order[:k])
    chosen = np.array(data.draw(st.lists(ids, min_size=T, max_size=T)), np.int32)
    tiles = sort_into_tiles(jnp.asarray(chosen), E, Q)
    count = num_tiles(T * k, E, Q)
    assert tiles.expert.shape == (count,) and tiles.token.shape == (count * Q,)
    taken = []
    for t in range(T):
        for j in range(k):
            place = int(tiles.place[t, j])
            if 0 <= chosen[t, j] < E:
                assert tiles.token[place] == t and tiles.expert[place // Q] == chosen[t, j]
                taken.append(place)
            else:
                assert place == count * Q
    assert len(set(taken)) == len(taken)
    assert (np.delete(np.asarray(tiles.token), taken) == T).all()
    used = {place // Q for place in taken}
    assert [tile for tile in range(count) if tiles.expert[tile] < E] == sorted(used)


def arguments(T, E, k, D, F, dtype, biased):
    weights, chosen = route(normal(T, E, seed=1), k)
    arrays = (
        normal(T, D, dtype=dtype), weights, chosen,
        normal(E, D, 2 * F, dtype=dtype, seed=2), normal(E, F, D, dtype=dtype, seed=3),
    )  # fmt: skip
    biases = {"gate_up_bias": normal(E, 2 * F, seed=4), "down_bias": normal(E, D, seed=5)}
    return arrays, biases if biased else {}


@pytest.mark.parametrize("T", [1, 5, 40])
@pytest.mark.parametrize(
    "activation, biased",
    [("silu", False), ("gelu_pytorch_tanh", False), ("clamped_swiglu", True)],
)
def test_experts_equal_reference(T, activation, biased):
    arrays, options = arguments(T, 6, 2, 24, 20, jnp.float32, biased)
    got = experts(*arrays, activation=activation, **options)
    want = experts_reference(*arrays, activation=activation, **options)
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_the_devices_of_a_mesh_share_the_experts():
    (x, weights, chosen, gate_up, down), _ = arguments(7, 6, 2, 24, 20, jnp.float32, False)
    parts = [
        experts(x, weights, chosen - low, gate_up[low : low + 3], down[low : low + 3])
        for low in (0, 3)
    ]
    want = experts_reference(x, weights, chosen, gate_up, down)
    np.testing.assert_allclose(sum(parts), want, atol=2e-5)


@pytest.mark.parametrize(
    "T, F, tile, activation, biased",
    [(1, 64, 8, "silu", False), (9, 128, 8, "clamped_swiglu", True), (40, 64, 32, "silu", True)],
)
def test_hopper_kernel_equals_reference(T, F, tile, activation, biased):
    if jax.__version_info__ < (0, 11):
        pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel")
    arrays, options = arguments(T, 4, 2, 320, F, jnp.bfloat16, biased)
    got = experts(*arrays, activation=activation, tile=tile, interpret=True, **options)
    want = experts_reference(*arrays, activation=activation, **options)
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    assert np.linalg.norm(got - want) < 0.01 * np.linalg.norm(want)


@pytest.mark.parametrize(
    "D, dtype, limit",
    [(96, jnp.bfloat16, "multiples of 64, not 96 x 64"), (64, jnp.float32, "16 bits, not float32")],
)
def test_refuses_by_name(D, dtype, limit):
    pytest.importorskip("absl")
    arrays, _ = arguments(2, 4, 2, D, 64, dtype, False)
    with pytest.raises(KernelError, match=limit):
        experts(*arrays, interpret=True)
