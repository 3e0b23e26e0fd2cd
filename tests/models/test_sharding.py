"""Meshes, and the table from logical axes to mesh axes."""

import jax
import pytest
from jax.sharding import PartitionSpec

from models.errors import UnsupportedError
from models.sharding import make_mesh, named_sharding, partition_spec


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_mesh_has_as_many_devices_as_asked(size: int) -> None:
    mesh = make_mesh(size)
    assert mesh.shape == {"tensor": size}
    assert list(mesh.devices) == jax.devices()[:size]


@pytest.mark.parametrize("size", [0, -1, 5])
def test_a_mesh_without_devices_is_an_error(size: int) -> None:
    with pytest.raises(UnsupportedError, match=r"there are 4 \(cpu\); use a size from 1 to 4"):
        make_mesh(size, jax.devices()[:4])


def test_logical_axes_become_mesh_axes() -> None:
    assert partition_spec(("vocab", "embed")) == PartitionSpec("tensor", None)
    assert partition_spec(("embed", "heads")) == PartitionSpec(None, "tensor")
    assert partition_spec((None, "mlp")) == PartitionSpec(None, "tensor")
    with pytest.raises(KeyError):
        partition_spec(("head",))


def test_a_sharded_array_lies_in_equal_parts() -> None:
    sharding = named_sharding(make_mesh(4), ("embed", "heads"))
    assert sharding.shard_shape((6, 8)) == (6, 2)
