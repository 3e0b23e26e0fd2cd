"""GPT-J: attention and MLP in parallel behind one norm, rotated pairs that are neighbours."""

from collections.abc import Mapping
from typing import Any

from models.architectures import gpt2
from models.config.decoder import ModelConfig
from models.config.fields import MAX_LAYERS
from models.config.heads import read_head_dim
from models.config.rope import rotated_dim
from models.layers.rope import RopeConfig
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("GPTJForCausalLM",)
LAYER = gpt2.LAYER
NAMES: Names = {
    **gpt2.NAMES,
    "layers.*.attention.qkv": tuple(f"{LAYER}.attn.{x}_proj" for x in "qkv"),
    "layers.*.attention.o": f"{LAYER}.attn.out_proj",
    "layers.*.mlp.up": f"{LAYER}.mlp.fc_in",
    "layers.*.mlp.down": f"{LAYER}.mlp.fc_out",
}
IGNORED = (*gpt2.IGNORED, "*.attn.embed_positions")


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = gpt2.read(raw, tie_word_embeddings=False)
    fields.refuse("tie_word_embeddings")
    asked = fields.integer("rotary_dim", 64)
    rotated = rotated_dim(fields, "rotary_dim", asked, read_head_dim(fields))
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    return gpt2.dense(
        fields, ropes=[RopeConfig(rotated)] * layers, learned_positions=False,
        parallel="one norm", qkv_bias=False, o_bias=False, head_bias=True,
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    return weight_map(config, NAMES, paired=True, ignored=IGNORED, optional_prefix="transformer.")
