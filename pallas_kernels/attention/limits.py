"""What the attention kernels take, in words: checked before anything is compiled."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from pallas_kernels.cache.quantise import QUANTISED, is_quantised
from pallas_kernels.dispatch import Backend
from pallas_kernels.errors import KernelError

_HEAD_DIMS = {Backend.MOSAIC: (64, 128, 192, 256, 512), Backend.TRITON: (64, 128, 192, 256)}
_HEAD_DIM_8 = 192  # with pages of 8 bits: shared memory holds them twice
_PAGE_SIZES = (16, 32, 64, 128)
_DTYPES = ("bfloat16", "float16")
_PAGE_DTYPES = (*_DTYPES, *QUANTISED)
# Pallas Triton counts in 32 bits, with a sign, up to 4 GiB, and in 64 bits beyond
NARROW_ENTRIES, _WIDE_BYTES = 2**31, 2**32


class AttentionShape(NamedTuple):
    """The sizes of a model's attention that are the same in every step."""

    head_dim: int  # as it is in pages
    page_size: int
    dtype: DTypeLike  # of pages


def page_head_dim(head_dim: int, backend: Backend) -> int:
    """Entries of a head as it lies in a page: on GPUs a multiple of 64, with zeros behind it."""
    return head_dim if backend is Backend.XLA else -(-head_dim // 64) * 64


def check_attention(shape: AttentionShape, backend: Backend) -> None:
    """Raise KernelError, naming the limit, if the backend's kernels do not take this shape."""
    if backend is Backend.XLA:
        return
    dtype = jnp.dtype(shape.dtype).name
    dims = _HEAD_DIMS[backend]
    widest = _HEAD_DIM_8 if is_quantised(dtype) else dims[-1]
    taken = ", ".join(map(str, dims))
    limits = [
        (shape.head_dim in dims, f"a head dim of {taken}, not {shape.head_dim}"),
        (
            shape.head_dim <= widest,
            f"a head dim up to {widest} in pages of {dtype}, not {shape.head_dim}",
        ),
        (shape.page_size in _PAGE_SIZES, f"a page size in {_PAGE_SIZES}, not {shape.page_size}"),
        (dtype in _PAGE_DTYPES, f"pages of {', '.join(_PAGE_DTYPES)}, not {dtype}"),
    ]  # fmt: skip
    for holds, limit in limits:
        if not holds:
            raise KernelError(f"The attention kernels of the backend {backend.value} take {limit}.")


def check_bias(biased: bool, backend: Backend) -> None:
    """Raise KernelError if scores have a bias by distance and the backend's kernels add none."""
    if biased and backend is not Backend.XLA:
        raise KernelError(
            f"The attention kernels of the backend {backend.value} add no bias by distance to "
            "scores, which the relative positions of T5 are."
        )


def check_pool(entries: int, dtype: DTypeLike, backend: Backend) -> None:
    """Raise KernelError if the backend's kernels cannot reach all of so many entries of keys."""
    size = entries * jnp.dtype(dtype).itemsize
    if backend is Backend.TRITON and entries > NARROW_ENTRIES and size <= _WIDE_BYTES:
        raise KernelError(
            "The kernels of the backend triton take keys of up to 2 GiB on a device, or of more "
            f"than 4 GiB, in pages of {jnp.dtype(dtype).name}, not {size / 2**30:.1f} GiB."
        )


def check_biases(sinks: Array | None, slopes: Array | None) -> None:
    """Raise KernelError if both are there: distances are counted from where it is cheap."""
    if sinks is not None and slopes is not None:
        raise KernelError("Attention takes sinks or slopes (ALiBi), not both.")


def check_pages(
    q: Array, pages: Array, k_scales: Array | None, v_scales: Array | None, backend: Backend
) -> None:
    """Raise KernelError if these queries and scales do not go with these pages."""
    name, asked = jnp.dtype(pages.dtype).name, jnp.dtype(q.dtype).name
    scaled = k_scales is not None and v_scales is not None
    if scaled != is_quantised(name) or (k_scales is None) != (v_scales is None):
        raise KernelError(
            f"Pages of {' or '.join(QUANTISED)} come with k_scales and v_scales, as `quantise` "
            f"gives them, and others with neither; these are of {name}."
        )
    if backend is Backend.XLA:
        return
    check_attention(AttentionShape(pages.shape[3], pages.shape[2], name), backend)
    check_pool(pages.size, name, backend)
    fitting = _DTYPES if scaled else (name,)
    if asked not in fitting:
        raise KernelError(
            f"The attention kernels of the backend {backend.value} take queries of "
            f"{' or '.join(fitting)} with pages of {name}, not {asked}."
        )
