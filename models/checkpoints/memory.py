"""Whether the parameters fit, found out before the first byte is read.

Owns the count of what they need and of what is free. Knows nothing of the KV cache, whose size is
chosen later from what is left.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from jax.sharding import Mesh

from models.errors import ModelError
from models.flatten import Leaf
from models.sharding import is_cpu, named_sharding

GIB = 2**30
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # the container's own limit, where there is one


def check_memory(leaves: Sequence[Leaf], mesh: Mesh) -> None:
    """Raise ModelError, saying what would work, if the leaves do not fit into what is free."""
    each, free = bytes_per_device(leaves, mesh), free_bytes(mesh)
    if is_cpu(mesh):
        need, where = each * mesh.size, "of the host's memory"
        remedy = "use a machine with more memory or a smaller model"
    else:
        need, where = each, f"on each of {mesh.size} device(s)"
        remedy = "use a larger tensor-parallel size, a narrower dtype or a smaller model"
    if free is not None and need > free:
        raise ModelError(
            f"The parameters need {need / GIB:.2f} GiB {where} and {free / GIB:.2f} GiB are free; "
            f"{remedy}."
        )


def bytes_per_device(leaves: Sequence[Leaf], mesh: Mesh) -> int:
    """Bytes of the leaves' shards on one device of the mesh."""
    return sum(
        math.prod(named_sharding(mesh, leaf.axes).shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in leaves
    )


def free_bytes(mesh: Mesh) -> int | None:
    """Bytes free on the fullest device, or in the host for CPU devices; None if nobody says."""
    if is_cpu(mesh):
        return host_free_bytes()
    stats = [device.memory_stats() for device in mesh.local_devices]
    free = [s["bytes_limit"] - s["bytes_in_use"] for s in stats if s and "bytes_limit" in s]
    return min(free, default=None)


def host_free_bytes() -> int | None:
    """Bytes of the host's memory that may still be taken; None if nobody says."""
    return _host_free(MEMINFO, CGROUP)


def _host_free(meminfo: Path, cgroup: Path) -> int | None:
    """The smaller of what Linux calls available and what the container may still take."""
    free = []
    if meminfo.is_file():
        # MemAvailable:   24053112 kB
        free.append(_counts(meminfo)["MemAvailable:"] * 1024)
    limit = cgroup / "memory.max"
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        used = int((cgroup / "memory.current").read_text())
        cached = _counts(cgroup / "memory.stat")["inactive_file"]  # given back when asked for
        free.append(int(text) - used + cached)
    return min(free, default=None)


def _counts(file: Path) -> dict[str, int]:
    lines = (line.split() for line in file.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}
