"""Where each parameter's numbers lie in a checkpoint, as data.

Owns that description and the layout of fused, sharded columns. Reads no bytes
(`checkpoints/loading.py` does) and knows no parameter by name (`decoder.py` and its neighbours do).

Fused kernels group their columns by shard, so that a column-sharded product splits where it lies:

    shards = 2    qkv kernel [D, (N + 2 K) H]:   q0 q1 k0 v0 | q2 q3 k1 v1       N = 4, K = 2
    shards = 4                                   q0 k0 v0 | q1 k0 v0 | q2 k1 v1 | q3 k1 v1
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

# Our module -> the checkpoint's, * the layer: "layers.*.mlp.up" -> "transformer.h.*.mlp.c_fc".
# A fused module has a tuple of names, or one name where the checkpoint has it fused as well.
# In the names of an expert's modules # is its number; without # there are tensors of all experts.
# In those of a shared block @ is the first layer that has it, and # counts layers that have any.
Names = Mapping[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Part:
    """`units * size` outputs of one checkpoint tensor, every `step`-th from output `start` on."""

    tensor: str  # "model.layers.3.self_attn.q_proj.weight"; "" is none, and zeros
    units: int  # what shards divide and never cut: heads, MLP dimensions, vocabulary rows
    size: int = 1  # outputs of one unit: H for a head
    start: int = 0  # not 0 where the checkpoint packs several parts into one tensor
    step: int = 1  # 2 where it has them in turns: gate 0, up 0, gate 1, up 1 ...
    group: int = 1  # behind so many units lie
    gap: int = 0  # so many outputs of other parts
    paired: int = 0  # first outputs of a unit, that are pairs of neighbours: ours are two halves
    whole: int | None = None  # outputs of the tensor, where another parameter has the rest of them

    def first(self, unit: int) -> int:
        """The output with which a unit begins."""
        return self.start + unit * self.size * self.step + unit // self.group * self.gap

    def runs(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Output, count and step of what lies together in units first .. last - 1, as ours lie."""
        if not self.gap and not self.paired:
            yield self.first(first), (last - first) * self.size, self.step
            return
        half = self.paired // 2
        for unit in range(first, last):
            at = self.first(unit)
            if half:
                yield at, half, 2
                yield at + 1, half, 2
            if self.size > self.paired:
                yield at + self.paired, self.size - self.paired, 1


@dataclass(frozen=True)
class Piece:
    """Outputs start, start + step .. of a checkpoint tensor: `count`, which are ours from `at`."""

    tensor: str
    start: int
    count: int
    step: int
    at: int


@dataclass(frozen=True)
class Source:
    """One parameter as pieces of checkpoint tensors laid along its `axis`; where none lies it is 0.

    `axis` counts in the parameter: 0 for vectors and embeddings, 1 for kernels [in, out]. Where
    `transpose` is set the checkpoint has the kernel as [out, in] and the pieces lie along its axis
    0; elsewhere tensor and parameter have the same axes. The other axes are equal in length.
    """

    parts: tuple[Part, ...]
    axis: int = 0
    transpose: bool = False
    divided: bool = False  # columns are grouped by shard: a fused kernel or its bias
    outputs_of: int | None = None  # outputs of the tensors, where others read the rest of them
    entry: int | None = None  # the tensors have an axis more, in front: this entry of it
    unit: bool = False  # outputs of a kernel are divided by the length of their row of the tensor
    exponents: bool = False  # the tensors have x of numbers -exp(x)
    between: bool = False  # the tensors have an axis more, of length 1, behind their first

    def pieces(self, shards: int = 1) -> Iterator[Piece]:
        """In order, for a model cut into `shards`; units that are fewer than these are repeated."""
        at = 0
        for shard in range(shards if self.divided else 1):
            for part in self.parts:
                first, last = _share(part.units, shard, shards) if self.divided else (0, part.units)
                for start, count, step in part.runs(first, last):
                    if part.tensor:
                        yield Piece(part.tensor, start, count, step, at)
                    at += count

    def outputs(self) -> dict[str, int]:
        """Length of each tensor along the output axis, as the checkpoint must have it."""
        lengths: dict[str, int] = {}
        for part in filter(lambda part: part.tensor, self.parts):
            last = part.first(part.units - 1) + (part.size - 1) * part.step
            length = part.whole or self.outputs_of or last + 1
            lengths[part.tensor] = max(length, lengths.get(part.tensor, 0))
        return lengths

    @property
    def tensors(self) -> set[str]:
        """Names of the checkpoint's tensors that it is made of."""
        return {part.tensor for part in self.parts if part.tensor}


@dataclass(frozen=True)
class Stack:
    """A parameter whose first axis counts experts or heads: entry e is made by `sources[e]`.

    Heads that are fewer than the shards are repeated until each shard has one.
    """

    sources: tuple[Source, ...]

    @property
    def tensors(self) -> set[str]:
        """Names of the checkpoint's tensors that it is made of."""
        return set().union(*(source.tensors for source in self.sources))


@dataclass(frozen=True)
class WeightMap:
    """The sources of a decoder's parameters, and what else its checkpoint may hold."""

    sources: Mapping[str, Source | Stack]  # "layers.3.attention.qkv.kernel" -> ...
    ignored: tuple[str, ...] = ()  # patterns of tensor names that need not be read
    optional_prefix: str = ""  # of tensor names; some checkpoints leave it out
    copies: Mapping[str, str] = field(default_factory=dict)  # ignored, if they equal these
    otherwise: "WeightMap | None" = None  # for checkpoints that have all tensors of this one

    @property
    def needed(self) -> set[str]:
        """Names of the tensors that parameters are made of."""
        return set().union(*(source.tensors for source in self.sources.values()))

    def suited(self, names: Collection[str]) -> "WeightMap":
        """The one of the two that a checkpoint with tensors of these names is for."""
        other = self.otherwise
        return other if other is not None and other.needed.issubset(names) else self


def _share(units: int, shard: int, shards: int) -> tuple[int, int]:
    """First unit of a shard, and the one behind its last: 8 heads over 2 shards, or 2 over 8."""
    if units >= shards:
        return shard * units // shards, (shard + 1) * units // shards
    first = shard * units // shards
    return first, first + 1
