"""Shapes of state-space layers that people run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pallas_kernels.case import Case, Tiling
from pallas_kernels.state_space.causal_conv import causal_conv
from pallas_kernels.state_space.reference import causal_conv_reference, ssm_scan_reference
from pallas_kernels.state_space.rows import ScanRows
from pallas_kernels.state_space.ssm_scan import scan_on_hopper, ssm_scan

Kind = Literal["mamba-1", "mamba-2", "delta"]
Scan = Callable[..., tuple[Array, Array]]  # results and states


@dataclass(frozen=True)
class ScanCase(Case):
    """One layer's scan of B rows with `tokens` tokens each."""

    kernel: ClassVar[str] = "ssm_scan"
    tolerance: ClassVar[float] = 0.005  # outputs in bfloat16
    updated: ClassVar[Mapping[int, int]] = {0: 1}

    kind: Kind
    B: int
    tokens: int
    N: int  # heads
    V: int  # rows of a head's state
    S: int
    J: int  # keys and queries

    def make(self, key: Array) -> tuple[Array, ...]:
        """State, values, keys, queries, rates, `matrix` or `beta` where the kind has one, rows."""
        T, N, V, S, J = self.B * self.tokens, self.N, self.V, self.S, self.J
        keys = jax.random.split(key, 6)
        normal = partial(jax.random.normal, dtype=jnp.bfloat16)
        width = V if self.kind == "mamba-1" else 1
        step = 0.1 * jax.random.uniform(keys[4], (T, N, width))
        extra: tuple[Array, ...] = ()
        if self.kind == "mamba-1":
            extra = (-jnp.exp(jax.random.normal(keys[5], (N, V, S))),)
        elif self.kind == "delta":
            extra = (jax.random.uniform(keys[5], (T, N)),)
        return (
            jax.random.normal(keys[0], (self.B + 1, N, V, S)),
            normal(keys[1], (T, N, V)),
            normal(keys[2], (T, J, S)) * jnp.bfloat16(S**-0.5),
            normal(keys[3], (T, J, S)),
            step if self.kind == "mamba-1" else -step,
            *extra,
            *_packed(self.B, self.tokens)[:4],
        )

    def run(
        self, *arrays: Any, tiling: Tiling | None = None, interpret: bool = False
    ) -> tuple[Float[Array, "T N V"], Float[Array, "Z N V S"]]:
        scan: Scan = partial(ssm_scan, single=self.tokens == 1)
        if interpret:
            scan = partial(scan_on_hopper, interpret=True)
        return self._call(scan, *arrays)

    def reference(self, *arrays: Any) -> tuple[Float[Array, "T N V"], Float[Array, "Z N V S"]]:
        return self._call(ssm_scan_reference, *arrays)

    def small(self) -> "ScanCase":
        long = self.tokens > 1 and self.kind != "mamba-1"  # what goes in chunks
        tokens, S = (68, 64) if long else (min(self.tokens, 19), 16)
        name = f"{self.kind}, {tokens} tokens"  # the same for several models
        return replace(self, name=name, B=2, tokens=tokens, N=2, V=64, S=S, J=1)

    @property
    def bytes_moved(self) -> int:
        """States read and written in float32, as rates are; the rest is in 16 bits."""
        states = 2 * 4 * self.B * self.N * self.V * self.S
        rates = 4 * self.N * (self.V if self.kind == "mamba-1" else 1)
        rows = 2 * 2 * self.N * self.V + 2 * 2 * self.J * self.S + rates
        return states + self.B * self.tokens * rows

    @property
    def flops(self) -> int:
        """Those of the recurrence, decay, write, read, which chunks turn into more on products."""
        return 5 * self.B * self.tokens * self.N * self.V * self.S

    def _call(self, scan: Scan, *arrays: Any) -> tuple[Array, Array]:
        name = {"mamba-1": "matrix", "delta": "beta"}.get(self.kind)
        extra = {name: arrays[5]} if name else {}
        return scan(*arrays[:5], ScanRows(*arrays[-4:]), **extra)


@dataclass(frozen=True)
class ConvCase(Case):
    """One layer's short convolution in a decode step of B rows."""

    kernel: ClassVar[str] = "causal_conv"
    tolerance: ClassVar[float] = 0.005  # outputs in bfloat16
    updated: ClassVar[Mapping[int, int]] = {2: 1}

    B: int
    C: int  # channels
    W: int

    def make(self, key: Array) -> tuple[Array, ...]:
        """Inputs, weights, states, rows."""
        keys = jax.random.split(key, 3)
        shapes = (self.B, self.C), (self.W, self.C), (self.B + 1, self.W - 1, self.C)
        arrays = map(partial(jax.random.normal, dtype=jnp.bfloat16), keys, shapes)
        return (*arrays, *_packed(self.B, 1)[:4])

    def run(
        self, *arrays: Any, tiling: Tiling | None = None, interpret: bool = False
    ) -> tuple[Float[Array, "T C"], Float[Array, "Z W1 C"]]:
        conv: Scan = causal_conv
        if interpret:
            from pallas_kernels.state_space.mosaic_conv import mosaic_conv

            conv = partial(mosaic_conv, interpret=True)
        return conv(*arrays[:3], ScanRows(*arrays[3:]))

    def reference(self, *arrays: Any) -> tuple[Float[Array, "T C"], Float[Array, "Z W1 C"]]:
        reference: Scan = causal_conv_reference
        return reference(*arrays[:3], ScanRows(*arrays[3:]))

    def small(self) -> "ConvCase":
        return replace(self, name="a decode step", B=2, C=512)

    @property
    def bytes_moved(self) -> int:
        """Inputs, outputs, states read and written, all in 16 bits."""
        return 2 * self.B * self.C * (2 + 2 * (self.W - 1))

    @property
    def flops(self) -> int:
        return 2 * self.B * self.C * self.W


def _packed(B: int, tokens: int) -> ScanRows:
    """Rows of `tokens` tokens each, none of them fresh."""
    row = jnp.arange(B, dtype=jnp.int32)
    count = jnp.full(B, tokens, jnp.int32)
    return ScanRows(tokens * row, count, (1 + row) % (B + 1), jnp.zeros(B, bool))


_LAYERS: tuple[tuple[str, Kind, int, int, int, int], ...] = (
    ("mamba-2.8b", "mamba-1", 1, 5120, 16, 1),
    ("falcon-mamba-7b", "mamba-1", 1, 8192, 16, 1),
    ("jamba-1.5-large", "mamba-1", 1, 16384, 16, 1),
    ("mamba2-2.7b", "mamba-2", 80, 64, 128, 1),
    ("nemotron-h-8b", "mamba-2", 128, 64, 128, 8),
    ("falcon-h1-34b", "mamba-2", 32, 128, 256, 2),
    ("qwen3-next-80b", "delta", 32, 128, 128, 16),
)

CASES: tuple[Case, ...] = (
    *(
        ScanCase(f"{name}, {use}", kind, B, tokens, N, V, S, J)
        for name, kind, N, V, S, J in _LAYERS
        for use, B, tokens in (
            ("64 rows", 64, 1),
            ("prompt 2k", 1, 2048),
            ("4 prompts 1k", 4, 1024),
        )
    ),
    ConvCase("mamba2-2.7b, 64 rows", 64, 5376, 4),
    ConvCase("qwen3-next-80b, 64 rows", 64, 8192, 4),
)
