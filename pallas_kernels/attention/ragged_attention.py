"""Causal attention of packed chunks of queries over their pages.

For any number of tokens a row, each of which sees all slots up to its own: chunked prefill, prompts
whose beginning is in pages already (a prefix hit is a chunk whose first position is not 0), steps
that mix prompts with decoding, and drafts appended to a row as a chain. Not for trees: a token sees
all that lies before it. For a few drafted tokens a row, in a chain or a tree, `paged_verify` reads
the row's keys once for all of them, side by side in a tile; 33 and more are for this one alone.
"""

from collections.abc import Callable
from typing import Any

from jaxtyping import Array, Float, Float32, Int32, Num

from pallas_kernels.attention.limits import check_bias, check_biases, check_pages
from pallas_kernels.attention.packed import attend_packed
from pallas_kernels.attention.paged_decode import VERSIONS, paged_decode
from pallas_kernels.attention.query_blocks import QueryBlocks, with_decode
from pallas_kernels.dispatch import Backend, resolve


def ragged_attention(
    q: Float[Array, "T N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " T"],
    *,
    blocks: QueryBlocks,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
    slopes: Float[Array, " N"] | None = None,
    k_scales: Float32[Array, "P Ks S"] | None = None,
    v_scales: Float32[Array, "P Ks S"] | None = None,
    distance_bias: Float[Array, "N R"] | None = None,
    backend: Backend | None = None,
) -> Float[Array, "T N H"]:
    """Token t at `positions[t]` over slots 0 .. positions[t] of its row; padding gives any value.

    Specification: `reference.attention_reference`, with each token's row as `blocks` says.

    Raises:
        KernelError: the GPU's kernel does not take these shapes or a `distance_bias`, scales are
            missing, or sinks and slopes are both there.
    """
    backend = resolve(backend, VERSIONS)
    check_pages(q, k_pages, k_scales, v_scales, backend)
    check_biases(sinks, slopes)
    check_bias(distance_bias is not None, backend)
    options: dict[str, Any] = {
        "scale": scale, "window": window, "softcap": softcap, "sinks": sinks, "slopes": slopes,
    }  # fmt: skip
    if k_scales is not None:
        options |= {"k_scales": k_scales, "v_scales": v_scales}
    if distance_bias is not None:
        options |= {"distance_bias": distance_bias}
    if backend is Backend.XLA:
        return attend_packed(q, k_pages, v_pages, page_table, positions, blocks, **options)
    return _ragged_on_gpu(q, k_pages, v_pages, page_table, positions, blocks, backend, **options)


def _ragged_on_gpu(
    q: Array, k_pages: Array, v_pages: Array, page_table: Array, positions: Array,
    blocks: QueryBlocks, backend: Backend, **options: Any,
) -> Array:  # fmt: skip
    """Rows of one token go as in a decode step, which reads their keys once for a whole group."""

    def chunks(least: int) -> Array:
        return _kernel(backend)(
            q, k_pages, v_pages, page_table, positions, blocks.first, blocks.length,
            least=least, **options,
        )  # fmt: skip

    def decode(queries: Array, asked: Array) -> Array:
        return paged_decode(
            queries, k_pages, v_pages, page_table, asked, backend=backend, **options
        )

    return with_decode(q, positions, blocks, chunks, decode)


def _kernel(backend: Backend) -> Callable[..., Array]:
    if backend is Backend.MOSAIC:
        from pallas_kernels.attention.mosaic_ragged import mosaic_ragged

        return mosaic_ragged
    from pallas_kernels.attention.triton_ragged import triton_ragged

    return triton_ragged
