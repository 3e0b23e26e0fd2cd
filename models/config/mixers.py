"""Layers whose memory is a state of fixed size: what differs between them, and the states' sizes.

A model has one kind of them, described in `ModelConfig.mixer`; which layers have it says
`LayerKind`. The arithmetic is in `mixers/`. Knows no JSON key and no family.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

Scan = tuple[int, int, int]  # N heads, each a matrix of V by S
_KEY_DIMS = (16, 32, 64, 128, 256)  # for which there are kernels


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
    norm_eps: float | None = None  # its eps, if it is not that of the model's norms
    gate_first: bool = True  # the gate is in what is normed
    step_limits: tuple[float, float] = (0.0, inf)
    output_bias: bool | None = None  # of the second one, if it differs
    input_scale: float = 1.0  # of what the mixer reads, and of what it gives
    output_scale: float = 1.0
    scales: tuple[float, ...] | None = None  # of gate, values, keys, queries and steps

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
    key_dim: int
    head_dim: int  # V
    conv_width: int
    norm_eps: float | None = None  # of the norm behind the scan, if it is not the model's
    most_replaced: float = 1.0  # of what lies along a key; above 1 it may change its sign
    # the checkpoint has one tensor for all projections, key head by key head
    grouped: bool = False
    # or one for each; and for the convolution several, of so many channels
    conv_parts: tuple[int, ...] | None = None

    @property
    def inner(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """C: queries, keys and values."""
        return 2 * self.num_key_heads * self.key_dim + self.inner

    @property
    def state_size(self) -> int:
        """S: keys of other lengths than kernels take end in zeros."""
        return next((size for size in _KEY_DIMS if size >= self.key_dim), self.key_dim)

    @property
    def scan(self) -> Scan | None:
        return self.num_heads, self.head_dim, self.state_size


@dataclass(frozen=True)
class KeyedDelta:
    """The gated delta rule that forgets by key entry (KDA). Source: Kimi Linear, arXiv 2510.26692.

    What is forgotten, and the gate behind the norm, are made from `head_dim` numbers each.
    """

    num_heads: int  # N
    head_dim: int  # V and S
    conv_width: int

    @property
    def inner(self) -> int:
        return self.num_heads * self.head_dim

    @property
    def conv_channels(self) -> int:
        """C: queries, keys and values."""
        return 3 * self.inner

    @property
    def scan(self) -> Scan | None:
        return self.num_heads, self.head_dim, self.head_dim


@dataclass(frozen=True)
class SelectiveScan:
    """Mamba's scan: a decay for each entry of the state. Source: arXiv 2312.00752."""

    inner: int  # V, of one head
    state_size: int  # S
    rank: int  # steps are made from so many numbers
    conv_width: int
    conv_bias: bool = True
    bias: bool = False
    # steps, keys and queries are normed, with weights or without; by which eps
    norms: Literal["weighted", "plain"] | None = None
    norm_eps: float = 1e-6

    @property
    def conv_channels(self) -> int:
        return self.inner

    @property
    def scan(self) -> Scan | None:
        return 1, self.inner, self.state_size


@dataclass(frozen=True)
class GatedConv:
    """A short convolution between two gates, and no scan. Source: LFM2's published model code."""

    inner: int  # D
    conv_width: int
    bias: bool = False  # of all three

    @property
    def conv_channels(self) -> int:
        return self.inner

    @property
    def scan(self) -> Scan | None:
        return None


@dataclass(frozen=True)
class LinearRecurrence:
    """A number a channel, that forgets by gates: RG-LRU. Source: Griffin, arXiv 2402.19427."""

    inner: int  # C
    num_blocks: int  # N, of channels that gates read together
    conv_width: int

    @property
    def block_size(self) -> int:
        return self.inner // self.num_blocks

    @property
    def conv_channels(self) -> int:
        return self.inner

    @property
    def scan(self) -> Scan | None:
        return 1, 1, self.inner


Mixer = DualScan | GatedDelta | KeyedDelta | SelectiveScan | GatedConv | LinearRecurrence
