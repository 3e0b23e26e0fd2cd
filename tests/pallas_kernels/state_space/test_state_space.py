"""Scan and convolution over packed rows equal the specification, however the tokens are cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pallas_kernels.state_space import ScanRows, Snapshots, causal_conv, linear_scan, ssm_scan
from pallas_kernels.state_space.chunked import unit_inverse
from pallas_kernels.state_space.reference import causal_conv_reference, ssm_scan_reference
from pallas_kernels.state_space.ssm_scan import scan_row_by_row

N, V, S, J = 4, 64, 16, 2
KINDS = ("mamba-1", "mamba-2", "delta")


def make_rows(counts, fresh=(), after=()):
    """Rows of these lengths, packed; states in shuffled slots of a pool of one more.

    With `after` there are snapshots, and all but the first row read another slot than their own.
    """
    counts = np.asarray(counts, np.int32)
    B = len(counts)
    slots = np.random.default_rng(1).permutation(3 * B + 1 if after else B + 1)
    rows = ScanRows(
        jnp.asarray(np.cumsum(counts) - counts, jnp.int32),
        jnp.asarray(counts),
        jnp.asarray(slots[:B], jnp.int32),
        jnp.asarray([row in fresh for row in range(B)]),
    )
    if not after:
        return rows
    sources = rows.slots.at[1:].set(slots[B + 1 : 2 * B])
    snapshots = Snapshots(jnp.asarray(after, jnp.int32), jnp.asarray(slots[2 * B : 3 * B]))
    return rows._replace(sources=sources, snapshots=snapshots)


def pool_size(rows):
    return rows.slots.size * (3 if rows.snapshots else 1) + 1


def make_arrays(kind, rows, T):
    """Arguments of a scan; states that are fresh or that nobody reads are NaN."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    Z = pool_size(rows)
    unused = sorted(set(range(Z)) - set(np.asarray(rows.read_slots)[~np.asarray(rows.fresh)]))
    state = normal(Z, N, V, S).at[jnp.asarray(unused, jnp.int32)].set(jnp.nan)
    width = S if kind == "keyed delta" else 1
    decay = jax.nn.softplus(normal(T, N, V)) if kind == "mamba-1" else -jnp.exp(normal(T, N, width))
    arrays = state, normal(T, N, V), normal(T, J, S) / 4, normal(T, J, S), decay
    extra = {}
    if kind == "mamba-1":
        extra["matrix"] = -jnp.exp(normal(N, V, S))
    if "delta" in kind:
        extra["beta"] = jax.nn.sigmoid(normal(T, N))
    return arrays, extra


def check(got, want, rows):
    live = int(rows.length.sum())
    np.testing.assert_allclose(got[0][:live], want[0][:live], atol=1e-4)
    np.testing.assert_allclose(got[1], want[1], atol=1e-4)  # NaN where it was NaN


SCANNED = (
    ([1, 1, 1], ()),
    ([1, 1, 1], [0, 1, 1]),
    ([5, 0, 1], ()),
    ([5, 0, 9], [5, 0, 2]),
    ([0, 0], ()),
)


@pytest.mark.parametrize(
    "kind, counts, after",
    [
        *((kind, *each) for kind in KINDS for each in SCANNED),
        ("keyed delta", [1, 1, 1], ()),
        ("keyed delta", [5, 0, 9], [5, 0, 2]),
    ],
)
def test_scan_equals_reference(kind, counts, after):
    rows = make_rows(counts, {0}, after)
    arrays, extra = make_arrays(kind, rows, max(sum(counts), 1) + 2)
    got = ssm_scan(*arrays, rows, **extra)
    check(got, ssm_scan_reference(*arrays, rows, **extra), rows)


@pytest.mark.parametrize("kind", [*KINDS[1:], "keyed delta"])
def test_chunks_equal_reference_in_float64(kind):
    counts = [31, 0, 1, 32, 33, 80, 5]
    with jax.enable_x64(True):
        rows = make_rows(counts, fresh={0})
        T = sum(counts)
        arrays, extra = make_arrays(kind, rows, T + 3)
        arrays = [x.astype(jnp.float64).at[T:].set(jnp.nan) for x in arrays[1:]]  # padding is NaN
        arrays = [make_arrays(kind, rows, T)[0][0].astype(jnp.float64), *arrays]
        extra = {name: x.astype(jnp.float64) for name, x in extra.items()}
        got = scan_row_by_row(*arrays, rows, chunk=32, **extra)
        want = ssm_scan_reference(*arrays, rows, **extra)
        np.testing.assert_allclose(got[0][:T], want[0][:T], atol=1e-12)
        np.testing.assert_allclose(got[1], want[1], atol=1e-12)


def test_chunks_survive_keys_that_are_all_the_same_and_decay_to_nothing():
    """Powers of the delta rule's matrix are then huge: 10^18 for 64 tokens."""
    rows = make_rows([64])
    (state, values, keys, queries, rates), _ = make_arrays("delta", rows, 64)
    state = jnp.zeros_like(state)
    keys = jnp.broadcast_to(keys[0] / jnp.linalg.norm(keys[0], axis=-1, keepdims=True), keys.shape)
    rates = (0 * rates).at[40].set(-jnp.inf)
    extra = {"beta": jnp.full((64, N), 0.99)}
    got = scan_row_by_row(state, values, keys, queries, rates, rows, chunk=64, **extra)
    want = ssm_scan_reference(state, values, keys, queries, rates, rows, **extra)
    check(got, want, rows)


@pytest.mark.parametrize("C", [1, 2, 16])
def test_unit_inverse(C):
    below = np.tril(np.random.default_rng(0).standard_normal((3, C, C)), -1)
    want = np.linalg.inv(np.eye(C) + below)
    np.testing.assert_allclose(unit_inverse(jnp.asarray(below)), want, rtol=1e-4, atol=1e-3)


borders = st.lists(
    st.integers(0, 70).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))),
    min_size=1, max_size=4,
)  # fmt: skip


@settings(max_examples=3, deadline=None)
@given(st.sampled_from(KINDS), borders)
def test_rows_of_any_length_leave_snapshots_anywhere(kind, lengths):
    counts, after = map(list, zip(*lengths, strict=True))
    rows = make_rows(counts, {1}, after)
    arrays, extra = make_arrays(kind, rows, sum(counts) + 9)
    got = scan_row_by_row(*arrays, rows, chunk=8, **extra)
    check(got, ssm_scan_reference(*arrays, rows, **extra), rows)


def test_a_snapshot_is_the_state_of_a_row_that_ends_there():
    rows = make_rows([20], (), [13])
    arrays, _ = make_arrays("mamba-2", rows, 20)
    _, state = ssm_scan(*arrays, rows)
    shorter = make_rows([13], (), [0])
    _, want = ssm_scan(*arrays, shorter)
    np.testing.assert_allclose(state[rows.snapshots.slots], want[rows.slots], atol=1e-5)
    follow = rows._replace(
        first=rows.first + 13, length=rows.length - 13, sources=rows.snapshots.slots, snapshots=None
    )
    _, found = ssm_scan(state, *arrays[1:], follow)
    np.testing.assert_allclose(found[rows.slots], state[rows.slots], atol=1e-5)


@settings(max_examples=3, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(0, 3))
def test_a_row_cut_in_two_steps_ends_where_it_would(counts, cut):
    """First `cut` tokens of every row in one step, the rest in the next."""
    rows = make_rows(counts)
    T = max(sum(counts), 1)
    arrays, extra = make_arrays("mamba-2", rows, T)
    whole = ssm_scan(*arrays, rows, **extra)
    first = rows._replace(length=jnp.minimum(rows.length, cut))
    second = rows._replace(first=rows.first + first.length, length=rows.length - first.length)
    # rows are packed: what lies between is padding, which a step may not have inside
    _, state = ssm_scan_reference(*arrays, first, **extra)
    y, state = ssm_scan_reference(state, *arrays[1:], second, **extra)
    np.testing.assert_allclose(state, whole[1], atol=1e-4)
    for row in range(len(counts)):
        part = slice(int(second.first[row]), int(second.first[row] + second.length[row]))
        np.testing.assert_allclose(y[part], whole[0][part], atol=1e-4)


@pytest.mark.parametrize(
    "counts, after",
    [([1, 1, 1], ()), ([5, 0, 1, 2], ()), ([9], [9]), ([1, 0, 8], [1, 0, 2])],
)
@pytest.mark.parametrize("width", [2, 4])
def test_convolution_equals_reference(counts, after, width):
    rows = make_rows(counts, {0}, after)
    arrays = conv_arrays(rows, sum(counts) + 2, width, 6)
    check(causal_conv(*arrays, rows), causal_conv_reference(*arrays, rows), rows)


def conv_arrays(rows, T, width, C):
    """Inputs, weights, states; that of row 0 is NaN, for it is fresh."""
    rng = np.random.default_rng(0)
    state = jnp.asarray(rng.standard_normal((pool_size(rows), width - 1, C)), jnp.float32)
    state = state.at[rows.slots[0]].set(jnp.nan)
    return *(jnp.asarray(rng.standard_normal((n, C)), jnp.float32) for n in (T, width)), state


@pytest.mark.parametrize(
    "counts, after",
    [([1, 5, 0, 70, 3], [1, 0, 0, 33, 3]), ([8, 64], ())],  # two levels of groups, three
)
def test_each_channel_by_itself_equals_the_scan_of_heads_of_one_number(counts, after):
    rows, T, C = make_rows(counts, {1}, after), sum(counts) + 9, 5
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.standard_normal((T, C)), jnp.float32).at[T - 9 :].set(jnp.nan)
    rates = jnp.asarray(-rng.exponential(0.3, (T, C)), jnp.float32)
    state = jnp.asarray(rng.standard_normal((pool_size(rows), C)), jnp.float32)
    state = state.at[rows.read_slots[1:2]].set(jnp.nan)  # of the row that is fresh
    ones = jnp.ones((T, 1, 1))
    want = ssm_scan_reference(
        state[..., None, None], inputs[..., None], ones, ones, rates[..., None], rows
    )
    got = jax.jit(linear_scan)(state, inputs, jnp.exp(rates), rows)
    check(got, [x.reshape(-1, C) for x in want], rows)


@pytest.mark.parametrize("wrong", ["inputs", "decay"])
def test_a_row_that_is_not_a_number_keeps_to_itself(wrong):
    rows = make_rows([10, 100, 3], {0, 1, 2})
    arrays = {"inputs": jnp.ones((120, 2)), "decay": jnp.full((120, 2), 0.5)}
    arrays[wrong] = arrays[wrong].at[3].set(jnp.nan)
    h, state = linear_scan(jnp.zeros((4, 2)), **arrays, rows=rows)
    assert np.isnan(h[3:10]).all() and not np.isnan(h[10:113]).any()
    assert not np.isnan(state[rows.slots[1:]]).any()


def make_single_rows(after):
    """A token of each row in its own place, and a row in the middle that has none."""
    rows = make_rows([1, 1, 1, 1], {0}, after)
    return rows._replace(length=jnp.asarray([1, 1, 0, 1], jnp.int32))


def check_live(got, want, rows):
    live = np.asarray(rows.length) > 0
    np.testing.assert_allclose(got[0][live], want[0][live], atol=1e-5)
    np.testing.assert_allclose(got[1], want[1], atol=1e-5)


SNAPSHOTS = pytest.mark.parametrize("after", [(), [1, 0, 0, 1]])


@SNAPSHOTS
@pytest.mark.parametrize("kind", [*KINDS, "keyed delta"])
def test_scan_of_single_tokens_equals_reference(kind, after):
    rows = make_single_rows(after)
    arrays, extra = make_arrays(kind, rows, 4)
    got = ssm_scan(*arrays, rows, **extra, single=True)
    check_live(got, ssm_scan_reference(*arrays, rows, **extra), rows)


@SNAPSHOTS
@pytest.mark.parametrize("width", [2, 4])
def test_convolution_of_single_tokens_equals_reference(width, after):
    rows = make_single_rows(after)
    arrays = conv_arrays(rows, 4, width, 6)
    got = causal_conv(*arrays, rows, single=True)
    check_live(got, causal_conv_reference(*arrays, rows), rows)


@SNAPSHOTS
def test_channels_of_single_tokens_need_no_prefixes(after):
    rows = make_single_rows(after)
    state = jnp.arange(2.0 * pool_size(rows)).reshape(-1, 2)
    arrays = state, jnp.ones((4, 2)), jnp.full((4, 2), 0.5)
    check_live(linear_scan(*arrays, rows, single=True), linear_scan(*arrays, rows), rows)
