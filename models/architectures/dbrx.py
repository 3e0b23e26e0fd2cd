"""DBRX: layer norms without biases, clipped queries, keys and values, experts in flat tensors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import llama
from models.config.decoder import Mixture, ModelConfig
from models.config.experts import MAX_EXPERTS
from models.config.fields import MAX_HEADS, MAX_LAYERS, Fields
from models.weights.decoder import weight_map
from models.weights.sources import Names, Part, Source, Stack, WeightMap

ARCHITECTURES = ("DbrxForCausalLM",)
KEYS = {
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "max_position_embeddings": "max_seq_len",
}
BLOCK = "transformer.blocks.*"
EXPERTS = f"{BLOCK}.ffn.experts.mlp"
NAMES: Names = {
    "embedding": "transformer.wte",
    "layers.*.attention_norm": f"{BLOCK}.norm_attn_norm.norm_1",
    "layers.*.attention.qkv": f"{BLOCK}.norm_attn_norm.attn.Wqkv",
    "layers.*.attention.o": f"{BLOCK}.norm_attn_norm.attn.out_proj",
    "layers.*.mlp_norm": f"{BLOCK}.norm_attn_norm.norm_2",
    "layers.*.mlp.router": f"{BLOCK}.ffn.router.layer",
    "layers.*.mlp.experts.gate_up": EXPERTS,
    "layers.*.mlp.experts.down": EXPERTS,
    "norm": "transformer.norm_f",
    "head": "lm_head",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw, names=KEYS)
    attention, mlp = fields.section("attn_config"), fields.section("ffn_config")
    mlp.section("ffn_act_fn").option("name", ("silu",), "silu")
    mlp.constant("moe_normalize_expert_weights", 1.0)
    experts = mlp.integer("moe_num_experts", 4, high=MAX_EXPERTS)
    mixture = Mixture(
        num_experts=experts,
        per_token=mlp.integer("moe_top_k", 1, high=experts),
        intermediate_size=mlp.integer("ffn_hidden_size", 3584),
        renormalize=mlp.raw.get("moe_normalize_expert_weights", 1.0) is not None,
    )
    common = {
        "intermediate_size": mixture.intermediate_size,
        "num_key_value_heads": attention.integer("kv_n_heads", 1, high=MAX_HEADS),
        "rms_norm_eps": 1e-5,
        "rope_theta": attention.number("rope_theta", 1e4, low=1.0),
    }
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    return llama.dense(
        Fields({**raw, **common}, names=KEYS), experts=[True] * layers, mixture=mixture,
        norm="layer", qkv_clip=attention.optional_number("clip_qkv"),
    )  # fmt: skip


def weights(config: ModelConfig) -> WeightMap:
    made = weight_map(config, NAMES)
    sources = {path: _flat(config, path, source) for path, source in made.sources.items()}
    return replace(made, sources=sources)


def _flat(config: ModelConfig, path: str, source: Source | Stack) -> Source | Stack:
    """Tensors of experts are [E F, D], those of `down` as well, which is so ours already."""
    if config.mixture is None or not isinstance(source, Stack):
        return source
    E, F = config.mixture.num_experts, config.mixture.intermediate_size
    turned, layer = path.endswith("gate_up"), path.split(".")[1]
    where = EXPERTS.replace("*", layer)
    names = (f"{where}.w1", f"{where}.v1") if turned else (f"{where}.w2",)
    return Stack(
        tuple(
            Source(
                tuple(Part(name, F, start=e * F) for name in names),
                axis=int(turned), transpose=turned, outputs_of=E * F,
            )
            for e in range(E)
        )
    )  # fmt: skip
