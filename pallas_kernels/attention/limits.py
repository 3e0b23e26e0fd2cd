"""What the attention kernels take, in words: checked before anything is compiled."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from pallas_kernels.dispatch import Backend
from pallas_kernels.errors import KernelError

_HEAD_DIMS = (64, 128, 192, 256)
_PAGE_SIZES = (16, 32, 64, 128)
_DTYPES = ("bfloat16", "float16")


class AttentionShape(NamedTuple):
    """The sizes of a model's attention that are the same in every step."""

    head_dim: int  # as it is in pages
    page_size: int
    dtype: DTypeLike


def page_head_dim(head_dim: int, backend: Backend) -> int:
    """Entries of a head as it lies in a page: on GPUs a multiple of 64, with zeros behind it."""
    return head_dim if backend is Backend.XLA else -(-head_dim // 64) * 64


def check_attention(shape: AttentionShape, backend: Backend) -> None:
    """Raise KernelError, naming the limit, if the backend's kernels do not take this shape."""
    if backend is Backend.XLA:
        return
    dtype = jnp.dtype(shape.dtype).name
    limits = [
        (shape.head_dim in _HEAD_DIMS, f"a head dim up to {_HEAD_DIMS[-1]}, not {shape.head_dim}"),
        (shape.page_size in _PAGE_SIZES, f"a page size in {_PAGE_SIZES}, not {shape.page_size}"),
        (dtype in _DTYPES, f"{' or '.join(_DTYPES)}, not {dtype}"),
    ]  # fmt: skip
    for holds, limit in limits:
        if not holds:
            raise KernelError(f"The attention kernels of the backend {backend.value} take {limit}.")
