"""Which version of a kernel runs: decided by the device, unless the caller has decided.

    CPU and others   xla      a formulation in jnp, for XLA to compile
    Hopper           mosaic   the kernels in Pallas Mosaic GPU

A program is traced for a device: that of the mesh of an enclosing shard_map, which may be described
only, or else the first of JAX's default backend.
"""

from enum import Enum
from typing import NamedTuple

import jax

from pallas_kernels.errors import KernelError

_HOPPER = ("H100", "H200", "H800", "H20", "GH200")


class Backend(Enum):
    """What runs the attention and other kernels."""

    XLA = "xla"
    MOSAIC = "mosaic"


class Device(NamedTuple):
    """What a kernel wants to know of where it will run."""

    platform: str
    kind: str
    num_cores: int


def backend_for(platform: str, kind: str) -> Backend:
    """The fastest that a device of this kind can run.

    Raises:
        KernelError: it is a GPU without kernels.
    """
    if platform != "gpu":
        return Backend.XLA
    if any(name in kind.split() for name in _HOPPER):
        return Backend.MOSAIC
    raise KernelError(f"There are no kernels for {kind}, only for Hopper GPUs.")


def resolve(backend: Backend | None) -> Backend:
    """`backend`, or the one for the device that is traced for."""
    if backend is not None:
        return backend
    device = traced_device()
    return backend_for(device.platform, device.kind)


def traced_device() -> Device:
    """The device that is traced for."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is not None:
        return Device(described.platform, described.device_kind, described.num_cores or 0)
    first = jax.devices()[0]
    return Device(first.platform, first.device_kind, getattr(first, "core_count", 0))
