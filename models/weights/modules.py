"""From one module of a decoder to the tensors of a checkpoint that its parameters are made of."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

from models.config.decoder import ModelConfig
from models.weights.sources import Names, Part, Source, Stack

Entry = tuple[str, Source | Stack]
Outputs = tuple[int, int]  # units, and outputs of each


@dataclass(frozen=True)
class Modules:
    """The names of a checkpoint, and how its tensors lie: each module's parameters as sources."""

    names: Names
    transpose: bool
    grouped: bool
    paired: bool
    expert_rows: bool
    expert_columns: bool

    def for_use(self, config: ModelConfig, layer: int) -> "Modules":
        """With the names of the block that this layer has."""
        number, firsts = config.block_layers.index(layer), config.first_block_layers
        first = str(firsts[number % len(firsts)])

        def named(name: str) -> str:
            return name.replace("@", first).replace("#", str(number)) if "@" in name else name

        names = {
            path: named(name) if isinstance(name, str) else tuple(map(named, name))
            for path, name in self.names.items()
        }
        return replace(self, names=names)

    def embedding(self, path: str, rows: Outputs) -> Entry:
        return path, Source(self.parts(path, (rows,), "weight"))

    def norm(
        self, path: str, outputs: Outputs, *, weight: bool = True, bias: bool
    ) -> Iterator[Entry]:
        for leaf in ["weight"] * weight + ["bias"] * bias:
            yield f"{path}.{leaf}", Source(self.parts(path, (outputs,), leaf))

    def linear(self, path: str, *outputs: Outputs, bias: bool) -> Iterator[tuple[str, Source]]:
        divided = len(outputs) > 1
        kernel = self.parts(path, outputs, "weight")
        yield f"{path}.kernel", Source(kernel, 1, self.transpose, divided)
        if bias:
            yield f"{path}.bias", Source(self.parts(path, outputs, "bias"), divided=divided)

    def parts(self, path: str, outputs: tuple[Outputs, ...], leaf: str) -> tuple[Part, ...]:
        """The tensors of a module: one for each output, or one in which they follow each other."""
        steps = path.split(".")
        layer = next(filter(str.isdigit, steps), "")
        name = self.names[".".join("*" if step == layer else step for step in steps)]
        if isinstance(name, tuple):
            tensors = [(one, 0) for one in name]
        else:
            lengths = [units * size for units, size in outputs]
            tensors = [(name, start) for start in accumulate(lengths[:-1], initial=0)]
        return tuple(
            Part(_join(tensor.replace("*", layer), leaf), units, size, start)
            for (tensor, start), (units, size) in zip(tensors, outputs, strict=True)
        )

    def heads(self, parts: tuple[Part, ...], rotated: int) -> tuple[Part, ...]:
        """Queries, keys and values, as the checkpoint arranges them."""
        q, k, *v = parts  # values may be the keys
        if self.grouped:
            size, queries = q.size, q.units // k.units
            q = replace(q, group=queries, gap=2 * size)
            k, *v = (
                replace(part, start=start * size, gap=(queries + 1) * size)
                for part, start in ((k, queries), (v[0], queries + 1))
            )
        if self.paired:
            q, k = replace(q, paired=rotated), replace(k, paired=rotated)
        return q, k, *v

    def each_head(self, path: str, heads: Outputs, leaf: str, pairs: int) -> Stack:
        """A vector of every head, from tensors of their own or rows of one."""
        (part,) = self.parts(path, ((1, heads[1]),), leaf)
        own = "#" in part.tensor
        return Stack(
            tuple(
                Source(
                    (replace(part, tensor=part.tensor.replace("#", str(n)), paired=pairs),),
                    entry=None if own else n,
                )
                for n in range(heads[0])
            )
        )

    def experts(self, path: str, E: int, outputs: tuple[Outputs, ...], leaf: str) -> Stack:
        """A kernel or bias of every expert, each from tensors of its own or an entry of one."""
        axis, turn = (1, self.transpose) if leaf == "weight" else (0, False)
        parts = self.parts(path, outputs, leaf)
        if "#" in parts[0].tensor:
            named = [
                tuple(replace(part, tensor=part.tensor.replace("#", str(e))) for part in parts)
                for e in range(E)
            ]
            return Stack(tuple(Source(one, axis, turn) for one in named))
        if self.expert_rows or self.expert_columns:
            turn = turn and self.expert_rows
            rows = tuple(replace(p, tensor=p.tensor.removesuffix(".weight")) for p in parts)
            return Stack(tuple(Source(rows, axis, turn, entry=e) for e in range(E)))
        tensor = parts[0].tensor.removesuffix(".weight").replace(".bias", "_bias")
        count = len(outputs)
        together = tuple(
            Part(tensor, units, start=place, step=count) for place, (units, _) in enumerate(outputs)
        )
        return Stack(tuple(Source(together, axis, entry=e) for e in range(E)))


def _join(tensor: str, leaf: str) -> str:
    return f"{tensor}.{leaf}" if leaf else tensor
