"""What the kernel of latent attention takes, and how many blocks it divides a row into."""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike

from pallas_kernels.dispatch import Backend, traced_device
from pallas_kernels.errors import KernelError
from pallas_kernels.tuning import tuned

LATENT, ROTARY = 512, 64  # columns of a latent: what is compressed, and the rotary key
ROWS = 64  # queries of a block, heads x tokens
HEADS = (8, 16, 32, 64, 128)
PAGE_SIZES = (16, 32, 64, 128)
DTYPES = ("bfloat16", "float16")
SPLITS = (1, 2, 4, 8, 16, 32, 64)
_KEYS_A_SPLIT = 256  # fewer, and writing parts costs more than reading latents


def blocks_a_token(N: int) -> int:
    """Blocks that share a token."""
    return -(-padded_heads(N) // ROWS)


def padded_heads(N: int) -> int:
    """Heads that divide a block or fill two, at least N."""
    return next(n for n in HEADS if n >= N)


class LatentShape(NamedTuple):
    """The sizes of a model's latent attention that are the same in every step."""

    num_heads: int  # of one device
    latent_dim: int
    value_dim: int
    page_size: int
    dtype: DTypeLike


def check_latents(shape: LatentShape, backend: Backend) -> None:
    """Raise KernelError, naming the limit, if the backend's kernels do not take this shape."""
    if backend is Backend.XLA:
        return
    rotary, dtype = shape.latent_dim - shape.value_dim, jnp.dtype(shape.dtype).name
    limits = [
        (
            (shape.value_dim, rotary) == (LATENT, ROTARY),
            f"latents of {LATENT} + {ROTARY} columns, not {shape.value_dim} + {rotary}",
        ),
        (
            shape.num_heads <= HEADS[-1],
            f"up to {HEADS[-1]} query heads, not {shape.num_heads}",
        ),
        (shape.page_size in PAGE_SIZES, f"a page size in {PAGE_SIZES}, not {shape.page_size}"),
        (dtype in DTYPES, f"{' or '.join(DTYPES)}, not {dtype}"),
    ]
    for holds, limit in limits:
        if not holds:
            name = backend.value
            raise KernelError(f"The latent attention kernel of the backend {name} takes {limit}.")


def splits_for(q_shape: tuple[int, ...], keys: int) -> int:
    """Into how many blocks a row is divided on the GPU traced for: as measured, or by rule."""
    gpu = traced_device()
    found = tuned("mla_decode", decode_facts(q_shape, keys), gpu.kind)
    return found["splits"] if found else choose_splits(q_shape, keys, gpu.num_cores)


def decode_facts(q_shape: tuple[int, ...], keys: int) -> dict[str, int]:
    """What the best number of splits depends on."""
    return {"blocks": q_shape[0] * blocks_a_token(q_shape[1]), "keys": keys}


def choose_splits(q_shape: tuple[int, ...], keys: int, num_cores: int) -> int:
    """The rule: enough to fill the GPU, each with work to do."""
    blocks = q_shape[0] * blocks_a_token(q_shape[1])
    fitting = [n for n in SPLITS if n == 1 or n * _KEYS_A_SPLIT <= keys]
    filling = [n for n in fitting if 8 * blocks * n >= 7 * num_cores]  # 128 of 132 will do
    return min(filling, default=fitting[-1])
