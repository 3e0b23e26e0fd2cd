"""The host's memory that parameters are read into.

On a CPU it is what every step reads from end to end, so it is made for that: it begins where JAX
takes an array as it is, without a copy of its own, and lies in huge pages where the kernel has
them: 400 MB are 100,000 pages of 4 KiB, more than a processor keeps the addresses of. The one-row
products of such a model alone took 1.23 times as long in small pages, a whole decode step 1.05
times (10th percentiles of 60 turns or fewer, two busy virtual cores of an EPYC, JAX 0.11.2).

Owns where such arrays lie. Refuses to know what is in them, and JAX.
"""

import math
import mmap
from contextlib import suppress

import numpy as np
from numpy.typing import DTypeLike

HUGE_PAGE = 2 * 1024 * 1024  # bytes, of x86 and of ARM with pages of 4 KiB


def host_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Zeros of `shape`; from 2 MiB on at the start of a huge page, and advised to be in such.

    Where the system has no huge pages, or not for those who ask, they are ordinary ones.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < HUGE_PAGE:
        return np.zeros(shape, dtype)
    room = _anonymous(size + HUGE_PAGE)  # what nobody touches takes no memory
    found = np.frombuffer(room, np.uint8)
    start = -found.ctypes.data % HUGE_PAGE
    _advise(room, start, (size + HUGE_PAGE // 2) // HUGE_PAGE * HUGE_PAGE)
    return found[start : start + size].view(dtype).reshape(shape)


def _anonymous(size: int) -> mmap.mmap:
    if not hasattr(mmap, "MADV_HUGEPAGE"):  # not Linux
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)  # the default is shared, by other rules


def _advise(room: mmap.mmap, start: int, size: int) -> None:
    """Not for a last page of which less than half is used: the whole of it would take memory."""
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without huge pages
            room.madvise(mmap.MADV_HUGEPAGE, start, size)
