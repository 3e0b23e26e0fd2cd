"""The Hopper decode kernel equals the specification, in Mosaic's interpreter, without races.

The interpreter stands in for shared memory, barriers and asynchronous copies. What it cannot know,
registers and layouts, only compiling for the GPU tells.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels.attention.reference import attention_reference
from pallas_kernels.cache.quantise import is_quantised, quantise

if jax.__version_info__ < (0, 11):
    pytest.skip("Mosaic's interpreter needs JAX 0.11 for this kernel", allow_module_level=True)
pytest.importorskip("absl", reason="Mosaic GPU needs absl-py")

from pallas_kernels.attention.mosaic_decode import mosaic_decode

EIGHT = {
    "int8": {"cache": "int8", "dtype": jnp.float16},
    "fp8": {"cache": "float8_e4m3fn", "window": 70},
}
CASES = {  # name: (N, K, H, S, splits, options)
    "grouped": (4, 1, 64, 16, 1, {}),
    "splits": (4, 2, 64, 64, 4, {}),
    "head dim 128": (2, 2, 128, 32, 2, {}),
    "head dim 256, float16": (2, 1, 256, 64, 1, {"dtype": jnp.float16}),
    "head dim 512, twelve heads": (12, 1, 512, 16, 2, {}),
    "page of two tiles": (2, 1, 64, 128, 2, {}),
    "twelve heads": (12, 1, 64, 64, 1, {}),
    "forty heads": (40, 1, 64, 64, 1, {}),
    "forty heads twice, splits, sinks": (80, 2, 64, 64, 2, {"sinks": range(80)}),
    "window": (2, 1, 64, 16, 2, {"window": 70}),
    "sinks": (2, 1, 64, 16, 1, {"sinks": [2.0, -1.0]}),
    "sinks and splits": (4, 2, 64, 64, 4, {"sinks": [2.0, -1.0, 0.0, 5.0]}),
    "slopes and splits": (4, 2, 64, 64, 3, {"slopes": [4.0, 2.0, 0.5, 0.01]}),
    "window and softcap": (2, 1, 64, 64, 2, {"window": 20, "softcap": 5.0}),
    "int8, splits": (4, 1, 64, 64, 2, {"cache": "int8"}),
    "int8, float16, sinks": (2, 1, 64, 16, 1, {**EIGHT["int8"], "sinks": [90.0, -1.0]}),
    "fp8, page 16, window, softcap": (4, 1, 128, 16, 2, {**EIGHT["fp8"], "softcap": 9.0}),
    "fp8, slopes": (10, 1, 64, 64, 1, {**EIGHT["fp8"], "slopes": range(10)}),
    "fp8, page of two tiles, sinks": (2, 1, 64, 128, 1, {**EIGHT["fp8"], "sinks": [2.0, 20.0]}),
}


def paged(rng, positions, K, H, S, dtype):
    """Pages in shuffled order; slots that no row has reached hold NaN."""
    pages_a_row = max(positions) // S + 2
    B = len(positions)
    count = B * pages_a_row + 1
    k, v = (rng.standard_normal((count, K, S, H)).astype(np.float32) for _ in range(2))
    table = 1 + rng.permutation(count - 1).reshape(B, pages_a_row).astype(np.int32)
    live = {table[b, p] for b, last in enumerate(positions) for p in range(last // S + 1)}
    for pages in (k, v):
        pages[[page for page in range(count) if page not in live]] = np.nan
        for b, last in enumerate(positions):
            pages[table[b, last // S], :, last % S + 1 :] = np.nan
    k, v, table = map(jnp.asarray, (k, v, table))
    if not is_quantised(dtype):
        return k.astype(dtype), v.astype(dtype), table, {}
    small = np.exp(2 * rng.standard_normal((*v.shape[:3], 1)) - 12)  # values of any magnitude
    (k, k_scales), (v, v_scales) = quantise(k, dtype), quantise(v * jnp.float32(small), dtype)
    return k, v, table, {"k_scales": k_scales, "v_scales": v_scales}


@pytest.mark.parametrize("name", CASES)
def test_equals_reference(name):
    N, K, H, S, splits, options = CASES[name]
    options = {"scale": H**-0.5, "window": None, "softcap": None, **options}
    dtype = options.pop("dtype", jnp.bfloat16)
    for name in {"sinks", "slopes"} & set(options):
        options[name] = jnp.asarray(list(options[name]), jnp.float32) / 8
    rng = np.random.default_rng(0)
    positions = [0, S - 1, S, -1, 200]
    k, v, table, scales = paged(rng, positions, K, H, S, options.pop("cache", dtype))
    options |= scales
    q = jnp.asarray(rng.standard_normal((len(positions), N, H)), dtype)
    where = jnp.asarray(positions, jnp.int32)
    got = mosaic_decode(
        q, k, v, table, where, splits=splits,
        interpret=True, **options,
    )  # fmt: skip
    want = attention_reference(q, k, v, table, jnp.arange(len(positions)), where, **options)
    want = jnp.where(where[:, None, None] < 0, 0.0, want.astype(jnp.float32))
    size = np.abs(want).max() if scales else 1.0
    np.testing.assert_allclose(got.astype(jnp.float32) / size, want / size, atol=0.02)
