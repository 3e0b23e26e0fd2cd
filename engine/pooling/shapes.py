"""Which programs a pooling model has, and which one a batch runs in.

    encoder   B rows of S tokens each     S 16 32 64 ... longest,  B 1 4 16 ... budget / S
    decoder   rows that follow each other   T 16 32 64 ... budget

A sequence is computed whole, so the largest program takes the longest one. Serving begins when a
coarse part of the programs is there: until the rest is, no batch is padded more than about 8 times.
"""

from dataclasses import dataclass

from engine.compiling.shapes import Shapes, StepShape
from engine.config import EngineConfig
from engine.errors import ConfigError

_SHORTEST = 16
_ROWS_APART = 4  # programs of an encoder: 1, 4, 16, 64 rows
_COARSE = 3  # of the sizes, every third is compiled first
_CPU_ROWS, _CPU_TOKENS, _GPU_ROWS, _GPU_TOKENS = 64, 1024, 256, 16384


@dataclass(frozen=True)
class PoolingShapes(Shapes):
    """The programs of one model, the smallest first, and the first ones to compile among them."""

    steps: tuple[StepShape, ...] = ()
    first: tuple[StepShape, ...] = ()

    def largest(self) -> list[StepShape]:
        """With these every batch can run."""
        return list(self.first)

    def decode(self) -> list[StepShape]:
        """There is nothing to continue."""
        return []

    def mixed(self) -> list[StepShape]:
        return list(self.steps)


def limits(config: EngineConfig, longest: int, *, cpu: bool) -> tuple[int, int]:
    """Rows and tokens of the largest step.

    Raises ConfigError if a sequence would not fit in a step.
    """
    tokens = config.max_num_batched_tokens or max(longest, _CPU_TOKENS if cpu else _GPU_TOKENS)
    if tokens < longest:
        raise ConfigError(
            f"--max-num-batched-tokens {tokens} is below the {longest} tokens that a sequence may "
            "have, and a pooling model computes a sequence in one step; use a larger one, or a "
            "smaller --max-model-len."
        )
    rows = config.max_num_seqs or (_CPU_ROWS if cpu else _GPU_ROWS)
    return min(rows, tokens), tokens


def encoder_shapes(rows: int, tokens: int, longest: int) -> PoolingShapes:
    """Padded rows: each length with numbers of rows that the budget allows."""
    lengths = _doubling(_SHORTEST, longest)
    steps, first = [], []
    for place, length in enumerate(reversed(lengths)):
        counts = _row_counts(min(rows, max(1, tokens // length)))
        here = [StepShape(count * length, count, False, 0, 1) for count in counts]
        steps += here
        first += [here[0], here[-1]] if place % _COARSE == 0 else []
    ordered = sorted(steps, key=lambda s: (s.tokens // s.rows, s.rows))
    return PoolingShapes(
        rows, tokens, longest, 1, steps=tuple(ordered), first=tuple(dict.fromkeys(first))
    )


def decoder_shapes(rows: int, tokens: int, longest: int, page_size: int) -> PoolingShapes:
    """Packed rows."""
    steps = Shapes(rows, tokens, longest, page_size).mixed()
    first = tuple(steps[::-_COARSE])
    return PoolingShapes(rows, tokens, longest, page_size, steps=tuple(steps), first=first)


def _doubling(smallest: int, largest: int) -> list[int]:
    sizes = [smallest]
    while sizes[-1] < largest:
        sizes.append(sizes[-1] * 2)
    return [*(size for size in sizes if size < largest), largest]


def _row_counts(most: int) -> list[int]:
    counts = [1]
    while counts[-1] < most:
        counts.append(min(most, counts[-1] * _ROWS_APART))
    return counts
