"""DeepSeek V3.2: V3, of whose latents each token sees those that an index chooses."""

from collections.abc import Mapping
from typing import Any

from models.architectures import deepseek_v3
from models.config.decoder import LatentIndex, ModelConfig
from models.config.experts import read_biased_mixture
from models.config.fields import MAX_HEADS, MAX_TOKENS, Fields
from models.weights.decoder import weight_map
from models.weights.mtp import layers_behind
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("DeepseekV32ForCausalLM",)
INDEXER = f"{deepseek_v3.ATTENTION}.indexer"
NAMES: Names = {
    **deepseek_v3.NAMES,
    "layers.*.attention.indexer.q": f"{INDEXER}.wq_b",
    "layers.*.attention.indexer.k": f"{INDEXER}.wk",
    "layers.*.attention.indexer.k_norm": f"{INDEXER}.k_norm",
    "layers.*.attention.indexer.weights": f"{INDEXER}.weights_proj",
}

mtp = deepseek_v3.mtp


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields({**deepseek_v3.DEFAULTS, **raw})
    fields.required("rope_interleave")
    fields.refuse("indexer_rope_interleave")
    return indexed_model(fields, heads=64)


def indexed_model(fields: Fields, heads: int) -> ModelConfig:
    """The keys of an index; the file must say how queries are compressed, which it reads."""
    fields.integer("q_lora_rank")
    rotated = fields.integer("qk_rope_head_dim", 64, high=MAX_HEADS)
    index = LatentIndex(
        heads=fields.integer("index_n_heads", heads, high=MAX_HEADS),
        dim=fields.integer("index_head_dim", 128, low=rotated, high=MAX_HEADS),
        top=fields.integer("index_topk", 2048, high=MAX_TOKENS),
    )
    return deepseek_v3.latent_model(fields, read_biased_mixture(fields), index)


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, ignored=layers_behind(config))
