"""A kernel of one's own, written in Triton: called from JAX, and checked without a GPU.

    pip install jax-triton triton          # 0.4 or later, which CUDA graphs can hold
    python -m pallas_kernels.compile_check --cases notebooks.triton_kernel --target a100

A kernel is a `Case`: what it is called with, what it must equal, what it must move at least. The
same record is what `pallas_kernels.compile_check` compiles and what a benchmark on a GPU times.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import jax
import jax.numpy as jnp
import jax_triton
import triton
import triton.language as tl
from jaxtyping import Array, Float

from pallas_kernels.case import Case, Tiling
from pallas_kernels.dispatch import Backend


@triton.jit
def gated_relu2_kernel(x, out, F: tl.constexpr, BLOCK: tl.constexpr):
    row, place = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < F
    gate = tl.load(x + row * 2 * F + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * F + F + place, mask=inside, other=0.0).to(tl.float32)
    positive = tl.maximum(gate, 0.0)
    value = positive * positive * up
    tl.store(out + row * F + place, value.to(out.dtype.element_ty), mask=inside)


def gated_relu2(x: Float[Array, "T 2F"], block: int = 1024) -> Float[Array, "T F"]:
    """relu(gate)^2 * up, where a row of x is gate, then up."""
    T, F = x.shape[0], x.shape[1] // 2
    found: Array = jax_triton.triton_call(
        x,
        kernel=gated_relu2_kernel,
        out_type=jax.ShapeDtypeStruct((T, F), x.dtype),
        grid=(T, triton.cdiv(F, block)),
        num_warps=4,
        F=F,
        BLOCK=block,
    )
    return found


@dataclass(frozen=True)
class GatedRelu2Case(Case):
    """T tokens of an MLP of F units."""

    kernel: ClassVar[str] = "gated_relu2"
    tolerance: ClassVar[float] = 0.005
    versions: ClassVar[tuple[Backend, ...]] = (Backend.MOSAIC, Backend.TRITON)  # any GPU of ours

    T: int
    F: int

    def make(self, key: Array) -> tuple[Array, ...]:
        return (jax.random.normal(key, (self.T, 2 * self.F), jnp.bfloat16),)

    def run(
        self, x: Array, *, tiling: Tiling | None = None, interpret: bool = False
    ) -> Float[Array, "T F"]:
        return gated_relu2(x, **(tiling or {}))

    def reference(self, x: Array) -> Float[Array, "T F"]:
        gate, up = jnp.split(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 2, axis=1)
        return (jax.nn.relu(gate) ** 2 * up).astype(x.dtype)

    def small(self) -> "GatedRelu2Case":
        return replace(self, T=2, F=100)

    @property
    def bytes_moved(self) -> int:
        """A row of x and its result, 16 bits each."""
        return 2 * 3 * self.T * self.F

    @property
    def flops(self) -> int:
        return 0  # no products

    def tilings(self) -> tuple[Tiling, ...]:
        return tuple({"block": n} for n in (512, 1024, 2048))


CASES: tuple[Case, ...] = (
    GatedRelu2Case("a step of 64 tokens", 64, 14336),
    GatedRelu2Case("a prompt of 2k", 2048, 14336),
)
