"""Which version of a kernel runs: decided once, when a program is traced, from its device.

the mesh of an enclosing shard_map, whose devices may be described only  ─┐
else the first device of JAX's default backend                           ─┴─> platform, kind
"""

from typing import NamedTuple

import jax

from pallas_kernels.errors import KernelError

_HOPPER = ("H100", "H200", "H800", "H20", "GH200")


class Hopper(NamedTuple):
    """A GPU that Mosaic kernels are written for."""

    num_cores: int


def hopper() -> Hopper | None:
    """The Hopper GPU that is being traced for, or None for the formulation without a GPU.

    Raises:
        KernelError: it is a GPU of another kind.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        first = jax.devices()[0]
        platform, kind, cores = first.platform, first.device_kind, getattr(first, "core_count", 0)
    else:
        platform, kind, cores = device.platform, device.device_kind, device.num_cores or 0
    if platform != "gpu":
        return None
    if not any(name in kind.split() for name in _HOPPER):
        raise KernelError(f"There is no attention kernel for {kind}; use a Hopper GPU or the CPU.")
    return Hopper(cores)
