"""A kernel at a shape that somebody runs: one record for the tests, the gate and the benchmark.

    make ─> arrays ─┬─ run        the version for the device that is traced for
                    └─ reference  the jnp function that defines it

Every kernel's `cases.py` lists its own; `pallas_kernels/cases.py` lists them all.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from jaxtyping import Array

from pallas_kernels.dispatch import Backend

Tiling = Mapping[str, int]  # what a kernel may choose: sizes of tiles, stages, splits


@dataclass(frozen=True)
class Case(ABC):
    """One kernel at one shape. Sizes are fields; the arrays follow from them."""

    kernel: ClassVar[str]
    tolerance: ClassVar[float]  # largest |run - reference| / |reference|, norms over all entries
    versions: ClassVar[tuple[Backend, ...]] = (Backend.MOSAIC,)  # that there are for GPUs
    updated: ClassVar[Mapping[int, int]] = {}  # argument that is updated in place: its output

    name: str  # the model or use it comes from

    @abstractmethod
    def make(self, key: Array) -> tuple[Array, ...]:
        """Random arguments as an engine would have them; under `eval_shape` only their shapes."""

    @abstractmethod
    def run(self, *arrays: Any, **how: Any) -> Array | tuple[Array, ...]:
        """The GPU version of what `make` made.

        Takes `tiling: Tiling | None`, where None is the kernel's own choice, and
        `interpret: bool`, which needs no GPU.
        """

    @abstractmethod
    def reference(self, *arrays: Any) -> Array | tuple[Array, ...]:
        """What `run` must equal; in float64 if the arrays are."""

    @abstractmethod
    def small(self) -> "Case":
        """The same kind of case, small enough for an interpreter on a CPU."""

    @property
    @abstractmethod
    def bytes_moved(self) -> int:
        """Bytes of the GPU's memory it must read and write, each once."""

    @property
    @abstractmethod
    def flops(self) -> int:
        """Floating-point operations of its products, two for a multiplication and addition."""

    def tilings(self) -> tuple[Tiling, ...]:
        """The choices worth timing; empty where there is nothing to choose."""
        return ()

    def facts(self) -> Mapping[str, int]:
        """What a tiling depends on; the kernel finds a tiling by the same names."""
        return {}

    def shapes(self) -> tuple[Any, ...]:
        """The arguments as shapes and dtypes."""
        return tuple(jax.eval_shape(self.make, jax.eval_shape(lambda: jax.random.key(0))))
