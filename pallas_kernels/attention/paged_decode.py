"""Attention of one query a row over its pages (PagedAttention's decode)."""

from typing import Any

from jaxtyping import Array, Float, Float32, Int32, Num

from pallas_kernels.attention.chunked import attend_blocks
from pallas_kernels.attention.limits import check_bias, check_biases, check_pages
from pallas_kernels.dispatch import Backend, resolve

VERSIONS = (Backend.MOSAIC, Backend.TRITON)


def paged_decode(
    q: Float[Array, "B N H"],
    k_pages: Num[Array, "P K S H"],
    v_pages: Num[Array, "P K S H"],
    page_table: Int32[Array, "B MP"],
    positions: Int32[Array, " B"],
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Float[Array, " N"] | None = None,
    slopes: Float[Array, " N"] | None = None,
    k_scales: Float32[Array, "P Ks S"] | None = None,
    v_scales: Float32[Array, "P Ks S"] | None = None,
    distance_bias: Float[Array, "N R"] | None = None,
    backend: Backend | None = None,
) -> Float[Array, "B N H"]:
    """Row b's query at `positions[b]` (-1: no query) over its slots 0 .. positions[b].

    Specification: `reference.attention_reference` with `row` = 0 .. B-1.

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
    if backend is not Backend.XLA:
        kernel = _on_hopper if backend is Backend.MOSAIC else _on_ampere
        return kernel(q, k_pages, v_pages, page_table, positions, **options)
    out = attend_blocks(q[:, None], k_pages, v_pages, page_table, positions[:, None], **options)
    return out[:, 0]


def _on_hopper(
    q: Array, k_pages: Array, v_pages: Array, page_table: Array, positions: Array, **options: Any
) -> Array:
    # Mosaic is imported where it is used: a CPU needs none of what it needs
    from pallas_kernels.attention.mosaic_decode import columns, decode_splits, mosaic_decode

    B, N, H = q.shape
    K, S = k_pages.shape[1:3]
    blocks = B * K * -(-N // K // columns(N // K, q.shape[2]))
    splits = decode_splits("paged_decode", blocks, page_table.shape[1] * S, H, S)
    return mosaic_decode(q, k_pages, v_pages, page_table, positions, splits=splits, **options)


def _on_ampere(
    q: Array, k_pages: Array, v_pages: Array, page_table: Array, positions: Array, **options: Any
) -> Array:
    from pallas_kernels.attention.triton_decode import triton_decode, triton_splits

    K, S = k_pages.shape[1:3]
    splits = triton_splits(q.shape, K, S, page_table.shape[1] * S)
    return triton_decode(q, k_pages, v_pages, page_table, positions, splits=splits, **options)
