"""Which version of a kernel runs: decided by the device, unless the caller has decided.

    CPU and others   xla      a formulation in jnp, for XLA to compile
    Hopper           mosaic   the kernels in Pallas Mosaic GPU
    Ampere, Ada      triton   those in Pallas Triton: attention, the cache; for the rest, xla

Hopper runs those in Triton too, where they are asked for.
A program is traced for a device: that of the mesh of an enclosing shard_map, which may be described
only, or else the first of JAX's default backend.
"""

import re
from enum import Enum
from typing import NamedTuple

import jax

from pallas_kernels.errors import KernelError

_HOPPER = re.compile(r"\b(G?H\d+)\b")  # H100 80GB HBM3, GH200 480GB
# A100-SXM4-80GB, A10G, RTX A6000; L4, L40S; GeForce RTX 3090 and 4090; RTX 6000 Ada Generation
_AMPERE_OR_ADA = re.compile(r"\b(A\d+G?|L\d+S?|RTX [34]0\d\d|Ada)\b")
_TRITON_CAPABILITIES = ("8.0", "8.6", "8.7", "8.9")


class Backend(Enum):
    """What runs the attention and other kernels."""

    XLA = "xla"
    MOSAIC = "mosaic"
    TRITON = "triton"


class Device(NamedTuple):
    """What a kernel wants to know of where it will run."""

    platform: str
    kind: str
    num_cores: int
    capability: str | None = None  # of CUDA; a device that is described only does not say


def backend_for(platform: str, kind: str, capability: str | None = None) -> Backend:
    """The fastest that a device of this kind runs; `capability` "8.0", where JAX says it.

    Raises:
        KernelError: it is a GPU without kernels.
    """
    if platform != "gpu":
        return Backend.XLA
    if capability == "9.0" or (capability is None and _HOPPER.search(kind)):
        return Backend.MOSAIC
    if capability in _TRITON_CAPABILITIES or (capability is None and _AMPERE_OR_ADA.search(kind)):
        return Backend.TRITON
    raise KernelError(f"There are no kernels for {kind}, only for Hopper, Ampere and Ada GPUs.")


def resolve(backend: Backend | None, versions: tuple[Backend, ...] = (Backend.MOSAIC,)) -> Backend:
    """`backend`, or else the traced device's; XLA if it is none of a kernel's GPU `versions`."""
    if backend is None:
        device = traced_device()
        backend = backend_for(device.platform, device.kind, device.capability)
    return backend if backend in versions else Backend.XLA


def traced_device() -> Device:
    """The device that is traced for."""
    described = jax.sharding.get_abstract_mesh().abstract_device
    if described is not None:
        return Device(described.platform, described.device_kind, described.num_cores or 0)
    first = jax.devices()[0]
    return Device(
        first.platform, first.device_kind, getattr(first, "core_count", 0), capability_of(first)
    )


def capability_of(device: object) -> str | None:
    """CUDA's compute capability of one of JAX's devices, where it is a GPU that is there."""
    return getattr(device, "compute_capability", None)
