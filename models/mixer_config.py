"""Layers whose memory is a state of fixed size: what differs between them, and the states' sizes.

A model has one kind of them, described in `ModelConfig.mixer`; which layers have it says
`LayerKind`. The arithmetic is in `mixers/`. Knows no JSON key and no family.
"""

from dataclasses import dataclass
from math import inf

Scan = tuple[int, int, int]  # N heads, each a matrix of V by S


@dataclass(frozen=True)
class DualScan:
    """Mamba-2's scan: one decay a head. Source: state space duality, arXiv 2405.21060."""

    num_heads: int  # N
    head_dim: int  # V
    state_size: int  # S
    groups: int  # of heads, that share keys and queries
    conv_width: int  # W
    conv_bias: bool = True
    bias: bool = False  # of both projections
    norm_groups: int | None = 1  # of the norm behind the scan; None: there is no norm
    gate_first: bool = True  # the gate is in what is normed
    step_limits: tuple[float, float] = (0.0, inf)

    @property
    def inner(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """C: values, keys and queries."""
        return self.inner + 2 * self.groups * self.state_size

    @property
    def scan(self) -> Scan | None:
        return self.num_heads, self.head_dim, self.state_size


@dataclass(frozen=True)
class GatedDelta:
    """The gated delta rule, whose state replaces what it has stored along a key.

    Source: gated DeltaNet, arXiv 2412.06464.
    """

    num_key_heads: int
    num_heads: int  # N, of values
    key_dim: int  # S
    head_dim: int  # V
    conv_width: int
    # the checkpoint has one tensor for all projections, key head by key head
    grouped: bool = False

    @property
    def inner(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """C: queries, keys and values."""
        return 2 * self.num_key_heads * self.key_dim + self.inner

    @property
    def scan(self) -> Scan | None:
        return self.num_heads, self.head_dim, self.key_dim


Mixer = DualScan | GatedDelta
