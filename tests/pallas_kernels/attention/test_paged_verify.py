"""Drafted tokens, in a chain and in a tree: the specification, the CPU's formulation, Hopper's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import paged_verify
from pallas_kernels.attention.reference import attention_reference
from pallas_kernels.cache.quantise import quantise
from pallas_kernels.dispatch import Backend
from pallas_kernels.errors import KernelError

PATHS = [[0], [0, 1], [0, 2], [0, 1, 3], [0, 1, 4]]  # token 3 follows 1, which follows 0
MASK = np.array([sum(1 << i for i in path) for path in PATHS], np.uint32)
FIRST, COUNTS = [0, 62, 130, 9], [3, 5, 5, 0]  # drafts across a page, and none


def make(N, K, H, S, dtype):
    """Rows of `COUNTS` drafts after contexts of `FIRST` keys; NaN where nothing was written."""
    rng = np.random.default_rng(0)
    B, width = len(FIRST), 136 // S + 1
    k, v = (rng.standard_normal((B * width + 1, K, S, H)).astype(np.float32) for _ in range(2))
    table = 1 + rng.permutation(B * width).reshape(B, width)
    written = np.zeros((B * width + 1, S), bool)
    for b, length in enumerate(np.add(FIRST, COUNTS)):
        places = np.arange(length)
        written[table[b, places // S], places % S] = True
    for pages in (k, v):
        pages.transpose(0, 2, 1, 3)[~written] = np.nan
    q = rng.standard_normal((B, len(PATHS), N, H))
    ints = (jnp.asarray(x, jnp.int32) for x in (table, FIRST, COUNTS))
    return *(jnp.asarray(x, dtype) for x in (q, k, v)), *ints


def expected(q, k, v, table, first, tree, **options):
    """The specification, row by row and token by token."""
    B, Q = q.shape[:2]
    rows = jnp.repeat(jnp.arange(B), Q)
    where = jnp.repeat(first, Q) + (0 if tree else jnp.tile(jnp.arange(Q), B))
    mask = {"tree_mask": jnp.tile(jnp.asarray(MASK), B)} if tree else {}
    flat = q.reshape(B * Q, *q.shape[2:])
    return attention_reference(flat, k, v, table, rows, where, **options, **mask).reshape(q.shape)


def check(got, want, atol):
    for b, count in enumerate(COUNTS):
        np.testing.assert_allclose(got[b, :count], want[b, :count], atol=atol)
    assert bool(jnp.isfinite(got).all())


def masks(tree):
    return {"tree_mask": jnp.tile(jnp.asarray(MASK), (len(FIRST), 1))} if tree else {}


@pytest.mark.parametrize("window", [None, 40])
def test_a_branch_of_the_tree_is_a_chain_of_its_own(window):
    """What is not on a token's path might as well not be there."""
    q, k, v, table, first, _ = make(2, 1, 16, 16, jnp.float32)
    options = {"scale": 0.25, "window": window}
    tree = expected(q, k, v, table, first, True, **options)
    for i, path in enumerate(PATHS):
        for b in (1, 2):
            length = FIRST[b]
            slots = np.array([*range(length), *(length + j for j in path)])
            alone = [x[table[b, slots // 16], :, slots % 16] for x in (k, v)]  # [keys K H]
            alone = [jnp.pad(x, ((0, 144 - len(slots)), (0, 0), (0, 0))) for x in alone]
            pages = [x.swapaxes(0, 1)[None] for x in alone]
            chain = attention_reference(
                q[b, i][None], *pages, jnp.zeros((1, 1), jnp.int32), jnp.zeros(1, jnp.int32),
                jnp.array([len(slots) - 1], jnp.int32), **options,
            )  # fmt: skip
            np.testing.assert_allclose(tree[b, i], chain[0], atol=1e-5)


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("window", [None, 4, 40])
def test_cpu_equals_reference(tree, window):
    q, k, v, table, first, counts = make(4, 2, 16, 16, jnp.float32)
    options = {"scale": 0.25, "window": window, "sinks": jnp.array([1.0, 0.0, -1.0, 2.0])}
    got = paged_verify(q, k, v, table, first, counts, **options, **masks(tree))
    check(got, expected(q, k, v, table, first, tree, **options), 2e-5)


def test_refuses_what_a_mask_cannot_say():
    q, k, v, table, first, counts = make(1, 1, 64, 16, jnp.float32)
    many = jnp.zeros((len(FIRST), 33, 1, 64))
    with pytest.raises(KernelError, match="up to 32 tokens a row, not 33"):
        paged_verify(many, k, v, table, first, counts, scale=1.0)
    with pytest.raises(KernelError, match="not float32"):
        paged_verify(q, k, v, table, first, counts, scale=1.0, backend=Backend.MOSAIC)


CASES = {  # name: (N, K, H, S, splits, tree, options)
    "chain, two key/value heads": (4, 2, 64, 16, 1, False, {}),
    "tree, window, sinks, splits": (4, 1, 64, 64, 3, True, {"window": 40, "sinks": [1, 0, -1, 2]}),
    "chain, narrow window": (2, 1, 64, 64, 2, False, {"window": 3}),
    "tree in two blocks, fp8": (8, 1, 64, 64, 1, True, {"cache": "float8_e4m3fn"}),
}


@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="Mosaic's interpreter needs JAX 0.11")
@pytest.mark.parametrize("name", CASES)
def test_hopper_equals_reference(name):
    pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")
    from pallas_kernels.attention.mosaic_verify import mosaic_verify

    N, K, H, S, splits, tree, options = CASES[name]
    q, k, v, table, first, counts = make(N, K, H, S, jnp.bfloat16)
    options = {"scale": H**-0.5, "window": None, "softcap": None, **options}
    if "sinks" in options:
        options["sinks"] = jnp.asarray(options["sinks"], jnp.float32)
    scales = {"k_scales": None, "v_scales": None}
    if cache := options.pop("cache", None):
        (k, scales["k_scales"]), (v, scales["v_scales"]) = quantise(k, cache), quantise(v, cache)
    options |= scales
    got = mosaic_verify(
        q, k, v, table, first, counts, splits=splits, interpret=True, **options, **masks(tree)
    )
    want = expected(q, k, v, table, first, tree, **options)
    check(got.astype(jnp.float32), want.astype(jnp.float32), 0.03)
