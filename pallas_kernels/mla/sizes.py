"""What the kernel of latent attention takes, in words: checked before anything is compiled."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from pallas_kernels.dispatch import Backend
from pallas_kernels.errors import KernelError

VALUES, ROTARY = 512, 64  # columns of a latent: what is compressed, and the rotary key
TILE = 64  # keys that a block does at a time
_PAGE_SIZES = (16, 32, 64, 128)
_DTYPES = ("bfloat16", "float16")


class LatentShape(NamedTuple):
    """The sizes of a model's latent attention that are the same in every step."""

    latent_dim: int
    value_dim: int
    page_size: int
    dtype: DTypeLike


def check_latents(shape: LatentShape, backend: Backend) -> None:
    """Raise KernelError, naming the limit, if the backend's kernels do not take this shape."""
    if backend is not Backend.MOSAIC:  # nothing else has a kernel: XLA takes any shape
        return
    rotary, dtype = shape.latent_dim - shape.value_dim, jnp.dtype(shape.dtype).name
    limits = [
        (
            (shape.value_dim, rotary) == (VALUES, ROTARY),
            f"latents of {VALUES} + {ROTARY} columns, not {shape.value_dim} + {rotary}",
        ),
        (shape.page_size in _PAGE_SIZES, f"a page size in {_PAGE_SIZES}, not {shape.page_size}"),
        (dtype in _DTYPES, f"{' or '.join(_DTYPES)}, not {dtype}"),
    ]
    for holds, limit in limits:
        if not holds:
            name = backend.value
            raise KernelError(f"The latent attention kernel of the backend {name} takes {limit}.")
