"""Arrays that a CPU computes once, however many loops read them."""

from typing import TypeVar

from jax import lax

from pallas_kernels.dispatch import traced_device

Arrays = TypeVar("Arrays")


def materialised(arrays: Arrays) -> Arrays:
    """The same arrays, on a CPU written before anything reads them.

    XLA computes what two loops read in both, and what is read once for each entry of a state once
    for each: a step's short convolution and its activation, of 8 rows with 1024 channels. A GPU has
    the time, and would have a launch more.
    """
    return lax.optimization_barrier(arrays) if traced_device().platform == "cpu" else arrays
