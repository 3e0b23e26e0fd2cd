"""Products with matrices that have the inputs of an output side by side, as checkpoints have them.

A CPU reads such a matrix from end to end once, whatever the number of rows. With a few of them it
is fastest to take the matrix for the left side, W xᵀ: XLA's product then cuts the outputs into
tiles, where it would cut the rows, of which there are not enough. One row is multiplied by parts of
the outputs, for which a thread each reads whole stretches. Times of x W, with W as [A, C], against
x Wᵀ and W xᵀ, with W as [C, A] (us; two cores of a Xeon, JAX 0.11.2; 0.10.2 is alike):

    A x C          rows    x W     x Wᵀ    W xᵀ
    768 x 2048     2       263     221     162
                   16      863     368     262
                   48      1255    693     687
                   256     2901    2793    3595
    2048 x 768     1       320     235     182         in four parts; out of memory
                   16      853     361     248

A decode step of a Llama of 110M parameters took 0.85 (8 rows) and 0.92 (16) of the time that it
took with W as [A, C] and the inputs in parts. Of 8 bits W is never the left side: XLA would copy
it for each product, into memory that it asks the system for if there is much of it. A step of that
model took 0.46 (1 row), 0.92 (8) and 0.76 (16) of the time with x Wᵀ (two cores of an EPYC, JAX
0.11.2; 1.0, 1.12 and 1.0 on 0.10.2, which copies nothing).
"""

import math

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from pallas_kernels.dispatch import traced_device

_ACROSS = (((1,), (1,)), ((), ()))  # both operands' last axes: as 8-bit tensor cores want them
_PARTS = 4  # of the outputs of one row; 2 and 8 were as fast
_MOST_ROWS = 32  # of twice as many, W xᵀ took up to 1.4 times


def product_across(
    x: Num[Array, "M A"], w: Num[Array, "C A"], dtype: DTypeLike
) -> Num[Array, "M C"]:
    """x Wᵀ, summed in `dtype`."""
    few = len(x) <= _MOST_ROWS and w.dtype.itemsize == 4
    if not few or traced_device().platform != "cpu":
        return lax.dot_general(x, w, _ACROSS, preferred_element_type=dtype)
    if len(x) == 1:
        parts = math.gcd(len(w), _PARTS)
        each = jnp.broadcast_to(x, (parts, x.shape[1]))
        found = jnp.einsum(
            "pca,pa->pc", w.reshape(parts, -1, w.shape[1]), each, preferred_element_type=dtype
        )
        return found.reshape(1, -1)
    turned = lax.dot_general(w, x, _ACROSS, preferred_element_type=dtype)
    # without the barrier XLA would put the transpose into the product, and be where it was
    return jnp.swapaxes(lax.optimization_barrier(turned), 0, 1)
