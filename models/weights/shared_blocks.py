"""Which parameters a layer has for its turn with a shared block, and from which tensors.

As `decoder.py`, of which this is a part.
"""

from collections.abc import Iterator
from dataclasses import replace

from models.config.decoder import ModelConfig, SharedBlocks
from models.weights.mixers import Builder
from models.weights.sources import Source


def use_entries(
    config: ModelConfig, blocks: SharedBlocks, build: Builder, path: str
) -> Iterator[tuple[str, Source]]:
    """Every parameter of a `BlockUse`, in the order of the computation."""
    rank, width = (blocks.rank, 1), (config.hidden_size, 1)
    if blocks.adapted_heads:
        for name, source in build.linear(f"{path}.heads.down", rank, rank, rank, bias=False):
            yield name, replace(source, divided=False)
        heads = {"q": config.num_heads, "k": config.num_kv_heads, "v": config.num_kv_heads}
        for letter, count in heads.items():
            yield from build.linear(f"{path}.heads.{letter}", (count, config.head_dim), bias=False)
    inner = (config.intermediate_size, 1)
    yield from build.linear(f"{path}.mlp.down", rank, bias=False)
    yield from build.linear(f"{path}.mlp.up", inner, inner, bias=False)
    yield from build.linear(f"{path}.out", width, bias=False)
