"""CodeGen: GPT-J, with queries, values and keys in one tensor, which has them in four blocks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import gptj
from models.config.decoder import ModelConfig
from models.errors import CheckpointError
from models.weights.decoder import weight_map
from models.weights.sources import Names, Source, WeightMap

ARCHITECTURES = ("CodeGenForCausalLM",)
BLOCKS = 4  # those of the devices that trained it
QKV = f"{gptj.LAYER}.attn.qkv_proj"
NAMES: Names = {**gptj.NAMES, "layers.*.attention.qkv": QKV}
IGNORED = (*gptj.IGNORED, "*.attn.causal_mask")


def config(raw: Mapping[str, Any]) -> ModelConfig:
    config = gptj.config(raw)
    if config.num_heads % BLOCKS:
        raise CheckpointError(
            f"config.json: n_head is {config.num_heads}; it must be a multiple of {BLOCKS}."
        )
    return config


def weights(config: ModelConfig) -> WeightMap:
    joined = weight_map(config, NAMES, paired=True, ignored=IGNORED, optional_prefix="transformer.")
    heads = config.num_heads // BLOCKS
    size = heads * config.head_dim

    def blocked(source: Source) -> Source:
        """Each block has the queries of its heads, their values, and their keys."""
        starts = (0, 2 * size, size)
        parts = tuple(
            replace(part, start=start, group=heads, gap=2 * size)
            for part, start in zip(source.parts, starts, strict=True)
        )
        return replace(source, parts=parts)

    sources = {
        path: blocked(source) if ".qkv." in path and isinstance(source, Source) else source
        for path, source in joined.sources.items()
    }
    return replace(joined, sources=sources)
