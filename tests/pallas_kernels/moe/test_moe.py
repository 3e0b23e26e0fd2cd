"""Routing, sorting and the experts' products equal their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from pallas_kernels.errors import KernelError
from pallas_kernels.moe import (
    Fp8Experts,
    Int4Experts,
    Int8Experts,
    Mxfp4Experts,
    dequantize,
    experts,
    num_parts,
    route,
    tiles,
    xla_experts,
)
from pallas_kernels.moe.formats import FORMATS, MX_BIAS
from pallas_kernels.moe.reference import experts_reference
from pallas_kernels.moe.sparse_mixer import sparse_mixer
from pallas_kernels.moe.tiles import num_tiles, sort_into_tiles, whole_tiles


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


def test_sparse_mixer_weighs_each_choice_against_its_rivals():
    logits = np.array([[2.0, 1.9, 1.0, -3.0], [-1.0, -1.05, -4.0, -1.2], [0.5, 3.0, 3.2, 3.1]])
    weights, chosen = sparse_mixer(jnp.asarray(logits), 2, 0.1)
    assert chosen.tolist() == [[0, 1], [0, 1], [2, 3]]
    rivals = [[(0, 1), (1,)], [(0, 1), (1,)], [(1, 2, 3), (1, 3)]]
    for t, both in enumerate(rivals):
        want = [np.exp(logits[t, e]) / np.exp(logits[t, list(those)]).sum()
                for e, those in zip(chosen[t].tolist(), both, strict=True)]  # fmt: skip
        np.testing.assert_allclose(weights[t], want, rtol=1e-5)


def test_renormalised_is_a_softmax_of_the_chosen():
    logits = normal(5, 8)
    weights, chosen = route(logits, 3)
    want = jax.nn.softmax(jnp.take_along_axis(logits, chosen, axis=1), axis=-1)
    np.testing.assert_allclose(weights, want, rtol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from([1, 5, 9]), st.sampled_from([1, 5]), st.sampled_from([1, 4]))
def test_every_choice_lies_in_a_tile_of_its_expert(data, T, E, Q):
    """Experts -1 and E are on other devices."""
    k = data.draw(st.sampled_from([1, min(E, 3)]))
    ids = st.permutations(range(-1, E + 1)).map(lambda order: order[:k])
    chosen = np.array(data.draw(st.lists(ids, min_size=T, max_size=T)), np.int32)
    tiles = jax.jit(sort_into_tiles, static_argnums=(1, 2))(jnp.asarray(chosen), E, Q)
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


@settings(max_examples=15, deadline=None)
@given(st.data(), st.sampled_from([1, 2, 8]), st.sampled_from([1, 5]))
def test_few_tokens_share_a_tile_an_expert(data, T, E):
    k = data.draw(st.sampled_from([1, min(E, 3)]))
    ids = st.permutations(range(-1, E + 1)).map(lambda order: order[:k])
    chosen = np.array(data.draw(st.lists(ids, min_size=T, max_size=T)), np.int32)
    tiles = jax.jit(whole_tiles, static_argnums=(1, 2))(jnp.asarray(chosen), E, 8)
    assert tiles.expert.shape == (min(T * k, E),)
    for t in range(T):
        for j in range(k):
            place = int(tiles.place[t, j])
            if 0 <= chosen[t, j] < E:
                assert tiles.expert[place // 8] == chosen[t, j] and place % 8 == t
            else:
                assert place == len(tiles.expert) * 8
    used = [int(expert) for expert in tiles.expert if expert < E]
    assert sorted(used) == sorted({e for e in chosen.ravel().tolist() if 0 <= e < E})


def arguments(T, E, k, D, F, dtype, biased, parts=2):
    weights, chosen = route(normal(T, E, seed=1), k)
    arrays = (
        normal(T, D, dtype=dtype), weights, chosen,
        normal(E, D, parts * F, dtype=dtype, seed=2), normal(E, F, D, dtype=dtype, seed=3),
    )  # fmt: skip
    biases = {"gate_up_bias": normal(E, parts * F, seed=4), "down_bias": normal(E, D, seed=5)}
    return arrays, biases if biased else {}


def test_without_a_gate_there_are_two_products():
    (x, weights, chosen, up, down), _ = arguments(5, 6, 2, 24, 20, jnp.float32, False, 1)
    got = experts(x, weights, chosen, up, down, activation="relu2")
    want = np.zeros((5, 24))
    for t, j in np.ndindex(5, 2):
        e = int(chosen[t, j])
        inner = np.maximum(np.asarray(x[t] @ up[e], np.float64), 0) ** 2
        want[t] += float(weights[t, j]) * (inner @ np.asarray(down[e]))
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("T", [1, 5, 40])  # 5 choose more than there are experts
@pytest.mark.parametrize(
    "activation, biased",
    [
        ("silu", False), ("gelu_pytorch_tanh", False), ("clamped_swiglu", True), ("relu2", False),
        ("relu2", True),
    ],
)  # fmt: skip
def test_experts_equal_reference(T, activation, biased):
    arrays, options = arguments(T, 6, 2, 24, 20, jnp.float32, biased, num_parts(activation))
    got = experts(*arrays, activation=activation, **options)
    want = experts_reference(*arrays, activation=activation, **options)
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("T", [2, 5])
def test_an_expert_of_nan_harms_only_those_who_chose_it(T):
    (x, weights, chosen, gate_up, down), _ = arguments(T, 6, 2, 24, 20, jnp.float32, False)
    bad = chosen[0, 0]
    got = experts(x, weights, chosen, gate_up, down.at[bad].set(jnp.nan))
    np.testing.assert_array_equal(np.isnan(got).any(1), (np.asarray(chosen) == bad).any(1))


def test_pieces_of_a_matrix_add_up(monkeypatch):
    monkeypatch.setattr(xla_experts, "_PLAIN_BYTES", 1024)  # 6 rows of 24, 10 of 20
    arrays, options = arguments(3, 6, 2, 24, 20, jnp.float32, True)
    got, want = experts(*arrays, **options), experts_reference(*arrays, **options)
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_many_choices_are_sorted_as_few_are(monkeypatch):
    chosen = jnp.asarray(np.random.default_rng(0).integers(-1, 5, (9, 3)), jnp.int32)
    few = sort_into_tiles(chosen, 4, 4)
    monkeypatch.setattr(tiles, "_COMPARED", 0)
    for got, want in zip(sort_into_tiles(chosen, 4, 4), few, strict=True):
        np.testing.assert_array_equal(got, want)


def packed(kind, E, A, C, group):
    rng, form = np.random.default_rng(A), FORMATS[kind]
    words = rng.integers(0, 2**16, (E, C, A * form.bits // 16)).astype(np.uint16)
    words &= np.uint16(0xBFBF if kind is Fp8Experts else 0xFFFF)  # no NaN
    scale = rng.random((E, A // group, C)).astype(np.float32) * A**-0.5 / 2
    if kind is Mxfp4Experts:
        scale = rng.integers(MX_BIAS - 8, MX_BIAS - 4, scale.shape).astype(np.uint8)
    return kind(jnp.asarray(words), jnp.asarray(scale))


STORED = [
    (Fp8Experts, 128, 128, 1), (Fp8Experts, 128, 64, 9), (Int8Experts, 128, 128, 9),
    (Int4Experts, 128, 64, 1), (Mxfp4Experts, 128, 32, 9),
]  # fmt: skip


@pytest.mark.parametrize("kind, size, group, T", STORED)
def test_packed_experts_equal_reference(kind, size, group, T, monkeypatch):
    monkeypatch.setattr(xla_experts, "_PACKED_BYTES", 16 * 1024)  # several pieces a matrix
    (x, weights, chosen, *_), options = arguments(T, 6, 2, size, size, jnp.float32, True)
    gate_up, down = packed(kind, 6, size, 2 * size, group), packed(kind, 6, size, size, group)
    got = experts(x, weights, chosen, gate_up, down, **options)
    want = experts_reference(x, weights, chosen, dequantize(gate_up), dequantize(down), **options)
    np.testing.assert_allclose(got, want, atol=2e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    "kind, D, group, tile",
    [
        (Fp8Experts, 256, 128, 64),  # two steps share a scale
        (Mxfp4Experts, 576, 32, None),  # more steps than stages
    ],
)
def test_hopper_kernel_of_packed_experts(kind, D, group, tile):
    if jax.__version_info__ < (0, 11):
        pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel")
    (x, weights, chosen, *_), _ = arguments(2, 2, 1, D, 128, jnp.bfloat16, False)
    gate_up, down = packed(kind, 2, D, 256, group), packed(kind, 2, 128, D, group)
    got = experts(x, weights, chosen, gate_up, down, tile=tile, interpret=True)
    want = experts_reference(x, weights, chosen, dequantize(gate_up), dequantize(down))
    got, want = (np.asarray(x, np.float64) for x in (got, want))
    assert np.linalg.norm(got - want) < 0.01 * np.linalg.norm(want)


@pytest.mark.parametrize("divided", ["experts", "columns"])
def test_devices_divide_experts_or_their_columns(divided):
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    (x, weights, chosen, gate_up, down), _ = arguments(7, 6, 2, 24, 20, jnp.float32, False)
    want = experts_reference(x, weights, chosen, gate_up, down)
    mesh = jax.make_mesh((2,), ("tensor",), axis_types=(AxisType.Auto,))
    if divided == "experts":
        specs = P("tensor"), P("tensor")
    else:  # a device has its columns of the gate, then of up
        gate_up = gate_up.reshape(6, 24, 2, 2, 10).swapaxes(2, 3).reshape(6, 24, 40)
        specs = P(None, None, "tensor"), P(None, "tensor")

    def here(x, weights, chosen, gate_up, down):
        first = lax.axis_index("tensor") * down.shape[0] if divided == "experts" else 0
        return lax.psum(experts(x, weights, chosen - first, gate_up, down), "tensor")

    shared = jax.shard_map(here, mesh=mesh, in_specs=(P(), P(), P(), *specs), out_specs=P())
    got = jax.jit(shared)(x, weights, chosen, gate_up, down)
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
    [
        (1, 64, None, "silu", False),
        (9, 128, 8, "clamped_swiglu", True),
        (9, 64, 8, "relu2", True),
    ],
)
def test_hopper_kernel_equals_reference(T, F, tile, activation, biased):
    if jax.__version_info__ < (0, 11):
        pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel")
    arrays, options = arguments(T, 4, 2, 320, F, jnp.bfloat16, biased, num_parts(activation))
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


@pytest.mark.parametrize(
    "size, group, dtype, tile, limit",
    [
        (96, 96, jnp.bfloat16, None, "multiples of 64, not 96 x 96"),
        (64, 64, jnp.float32, None, "tokens in bfloat16, not float32"),
        (64, 64, jnp.bfloat16, 128, "tiles of up to 64 tokens, not 128"),
    ],
)
def test_packed_refuses_by_name(size, group, dtype, tile, limit):
    pytest.importorskip("absl")
    (x, weights, chosen, *_), _ = arguments(2, 4, 2, size, size, dtype, False)
    gate_up = packed(Fp8Experts, 4, size, 2 * size, group)
    with pytest.raises(KernelError, match=limit):
        experts(x, weights, chosen, gate_up, gate_up, tile=tile, interpret=True)
