"""Which device holds which part of an array.

    logical axis     mesh axis
    vocab            tensor      embeddings by rows, heads by columns
    heads            tensor      outputs of QKV, inputs of the attention's output product
    mlp              tensor      outputs of gate and up, inputs of down
    expert           tensor      whole experts
    embed, choice,   (none)      the whole of it on every device, and so of all other names

Owns the mesh, this table, and how a function runs on the parts. Refuses to know the models that use
the names.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from models.errors import UnsupportedError

Result = TypeVar("Result")

TENSOR = "tensor"
MESH_AXES: Mapping[str | None, str | None] = {
    "vocab": TENSOR,
    "heads": TENSOR,
    "mlp": TENSOR,
    "expert": TENSOR,
    "embed": None,
    "norm": None,
    "choice": None,
    "latent": None,
    "position": None,
    "rank": None,
    None: None,
}


def make_mesh(tensor_parallel_size: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh of the first `tensor_parallel_size` of `devices` (default: all that JAX sees).

    Raises:
        UnsupportedError: there are fewer devices.
    """
    devices = jax.devices() if devices is None else devices
    if not 1 <= tensor_parallel_size <= len(devices):
        raise UnsupportedError(
            f"A tensor-parallel size of {tensor_parallel_size} needs as many devices and there are "
            f"{len(devices)} ({devices[0].platform}); use a size from 1 to {len(devices)}."
        )
    return jax.make_mesh(
        (tensor_parallel_size,),
        (TENSOR,),
        axis_types=(AxisType.Auto,),
        devices=devices[:tensor_parallel_size],
    )


def is_cpu(mesh: Mesh) -> bool:
    """Whether its devices are the host's own processors."""
    return bool(mesh.devices.flat[0].platform == "cpu")


def partition_spec(axes: Sequence[str | None]) -> PartitionSpec:
    """The partition of an array whose axes have these logical names; KeyError for any other."""
    return PartitionSpec(*(MESH_AXES[axis] for axis in axes))


def named_sharding(mesh: Mesh, axes: Sequence[str | None]) -> NamedSharding:
    """The same, on the devices of `mesh`."""
    return NamedSharding(mesh, partition_spec(axes))


def on_each_device(
    compute: Callable[..., Result], mesh: Mesh | None, in_specs: Any, out_specs: Any
) -> Callable[..., Result]:
    """`compute`, done by each device of `mesh` with the parts that the specs give it.

    Without a mesh it stays as it is. A mesh of one device is no such case: kernels ask it which
    device they are for.
    """
    if mesh is None:
        return compute
    return jax.shard_map(
        compute, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )
