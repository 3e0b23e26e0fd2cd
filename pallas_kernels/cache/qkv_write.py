"""What happens between the fused projection and attention, in one launch: norm, rotate, write."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32

from pallas_kernels.cache.quantise import is_quantised
from pallas_kernels.cache.reference import HeadNorms, Pages, Turn, qkv_write_reference, ready_heads
from pallas_kernels.dispatch import Backend, resolve
from pallas_kernels.errors import KernelError

_PIECE = 16  # bytes: what TMA takes of the columns of a head
_MOST_HEADS = 256  # of one TMA
VERSIONS = (Backend.MOSAIC, Backend.TRITON)


def qkv_write(
    qkv: Float[Array, "T columns"],
    pages: Pages,
    page: Int32[Array, " T"],
    slot: Int32[Array, " T"],
    *,
    head_dim: int,
    turn: Turn | None = None,
    norms: HeadNorms | None = None,
    backend: Backend | None = None,
) -> tuple[Float[Array, "T N Hp"], Pages]:
    """The queries of attention, and the pages with token t in `page[t]`, `slot[t]`.

    A token's columns are N query, K key and K value heads. A page past the end is dropped; no two
    tokens that are kept may share a place. With `pages` donated they are updated in place.
    Specification: `reference.qkv_write_reference`.

    Heads of which the kernel for Hopper cannot take the rotated part by itself (20 of 80
    dimensions, in Pythia 2.8B) are normed and rotated by XLA, and the kernel writes them.

    Raises:
        KernelError: the GPU's kernel does not take these shapes.
    """
    backend = resolve(backend, VERSIONS)
    heads = qkv.shape[1] // head_dim - 2 * pages.k.shape[1]
    check_qkv_write(WriteShape(heads, head_dim, qkv.dtype, pages.k.dtype), backend)
    pairs = 0 if turn is None or backend is not Backend.MOSAIC else turn[0].shape[1]
    if pairs % _entries(pages.k.dtype):
        parts = ready_heads(qkv, pages.k.shape[1], head_dim, turn, norms)
        columns = [part.astype(qkv.dtype).reshape(qkv.shape[0], -1) for part in parts]
        qkv, turn, norms = jnp.concatenate(columns, axis=1), None, None
    run = _kernel(backend)
    return run(qkv, pages, page, slot, head_dim=head_dim, turn=turn, norms=norms)


def _kernel(backend: Backend) -> Callable[..., tuple[Array, Pages]]:
    # imported where they are used: a CPU needs none of what they need
    if backend is Backend.MOSAIC:
        from pallas_kernels.cache.mosaic_qkv_write import mosaic_qkv_write

        return mosaic_qkv_write
    if backend is Backend.TRITON:
        from pallas_kernels.cache.triton_qkv_write import triton_qkv_write

        return triton_qkv_write
    return qkv_write_reference


class WriteShape(NamedTuple):
    """The sizes of a model's projections and pages that are the same in every step."""

    heads: int  # of the queries
    head_dim: int
    dtype: DTypeLike  # of queries, keys and values
    pages: DTypeLike


def check_qkv_write(shape: WriteShape, backend: Backend) -> None:
    """Raise KernelError, naming the limit, if the backend's kernel does not take this shape."""
    if backend is not Backend.MOSAIC:  # Triton's takes what its attention does
        return
    heads, head_dim = shape.heads, shape.head_dim
    dtype, pages = jnp.dtype(shape.dtype), jnp.dtype(shape.pages)
    entries = _entries(pages)
    limits = [
        (dtype.itemsize == 2, f"16-bit queries, keys and values, not {dtype}"),
        (
            is_quantised(pages) or pages == dtype,
            f"pages of the dtype of queries, {dtype}, or of eight bits, not {pages}",
        ),
        (head_dim % entries == 0, f"a head dim that {entries} divides, not {head_dim}"),
        (heads <= _MOST_HEADS, f"up to {_MOST_HEADS} query heads, not {heads}"),
    ]
    for holds, limit in limits:
        if not holds:
            raise KernelError(f"The kernel that writes keys and values takes {limit}.")


def _entries(pages: DTypeLike) -> int:
    """Numbers in the smallest piece of a head."""
    return _PIECE // jnp.dtype(pages).itemsize
