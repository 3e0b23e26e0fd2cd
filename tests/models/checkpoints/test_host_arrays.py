"""Memory for parameters: where it lies, and that JAX takes it as it is."""

import mmap
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from models.checkpoints.host_arrays import HUGE_PAGE, host_zeros
from models.sharding import make_mesh, named_sharding

_LARGE = (3, HUGE_PAGE // 4)  # three huge pages of float32
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def _given(*modes: str) -> bool:
    enabled = _ENABLED.read_text() if _ENABLED.is_file() else "[never]"
    return any(mode in enabled for mode in modes or ("[madvise]", "[always]"))


def _resident() -> int:
    """Bytes of memory that the process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def _kib_in_huge_pages(address: int) -> int:
    """AnonHugePages of the mapping that holds an address, in smaps."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            low, high = (int(bound, 16) for bound in bounds.groups())
            inside = low <= address < high
        elif inside and line.startswith("AnonHugePages:"):
            return int(line.split()[1])
    return 0


@pytest.mark.parametrize("shape", [(), (0, 5), (7,), _LARGE, (HUGE_PAGE // 4 + 1,)])
def test_zeros_that_can_be_written(shape: tuple[int, ...]) -> None:
    array = host_zeros(shape, np.float32)
    assert array.shape == shape and array.dtype == np.float32
    assert not array.any()
    array[...] = 1.0
    assert array.all()


def test_from_2_mib_on_an_array_begins_with_a_huge_page() -> None:
    for dtype in (np.int8, np.float16, np.float32):
        address = host_zeros((HUGE_PAGE + 3,), dtype).ctypes.data
        assert address % HUGE_PAGE == 0


@pytest.mark.skipif(not _given(), reason="a kernel that gives no huge pages to those who ask")
def test_what_is_written_lies_in_huge_pages() -> None:
    array = host_zeros(_LARGE, np.float32)
    array[...] = 1.0
    assert _kib_in_huge_pages(array.ctypes.data) >= HUGE_PAGE // 1024


@pytest.mark.skipif(not _given("[madvise]"), reason="huge pages for all, or for nobody")
def test_the_rest_of_a_last_page_takes_no_memory() -> None:
    size, before = HUGE_PAGE + HUGE_PAGE // 8, _resident()
    arrays = [host_zeros((size,), np.int8) for _ in range(20)]
    for array in arrays:
        array[...] = 1
    assert _resident() - before < 20 * size + 10 * HUGE_PAGE


def test_a_cpu_reads_the_very_same_memory() -> None:
    sharding = named_sharding(make_mesh(1, jax.devices("cpu")), (None, None))
    array = host_zeros(_LARGE, np.float32)
    placed = jax.make_array_from_callback(_LARGE, sharding, lambda index: array)
    assert placed.addressable_shards[0].data.unsafe_buffer_pointer() == array.ctypes.data
