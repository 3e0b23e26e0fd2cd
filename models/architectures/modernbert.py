"""ModernBERT (arXiv 2412.13663): rotary positions, gated MLPs, norms in front, and windows."""

from collections.abc import Mapping
from typing import Any, Literal

from models.config.encoder import ClassifierHead, EncoderConfig, EncoderLayerKind
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.config.label_names import num_labels
from models.encoder import HEAD_ACTIVATIONS
from models.layers.parts import ACTIVATIONS
from models.layers.rope import RopeConfig
from models.weights.encoder import EncoderNames, encoder_weights
from models.weights.sources import WeightMap

ENCODERS = ("ModernBertModel", "ModernBertForMaskedLM", "ModernBertForSequenceClassification")

LAYER = "model.layers.*"
NAMES: EncoderNames = {
    "embedding": "model.embeddings.tok_embeddings",
    "embedding_norm": "model.embeddings.norm",
    "layers.*.qkv": f"{LAYER}.attn.Wqkv",
    "layers.*.o": f"{LAYER}.attn.Wo",
    "layers.*.attention_norm": f"{LAYER}.attn_norm",
    "layers.*.up": f"{LAYER}.mlp.Wi",
    "layers.*.down": f"{LAYER}.mlp.Wo",
    "layers.*.mlp_norm": f"{LAYER}.mlp_norm",
    "norm": "model.final_norm",
    "head.first": "head.dense",
    "head.norm": "head.norm",
    "head.last": "classifier",
}
GLOBAL, LOCAL = ("global_rope_theta", 160_000.0), ("local_rope_theta", 10_000.0)
THETA = {"full_attention": GLOBAL, "sliding_attention": LOCAL}
POOLINGS: Mapping[str, Literal["CLS", "MEAN"]] = {"cls": "CLS", "mean": "MEAN"}
IGNORED = ("head.*", "decoder.*")  # of a masked language model


def config(raw: Mapping[str, Any]) -> EncoderConfig:
    fields = Fields(raw)
    fields.refuse("rope_scaling", "attention_bias", "mlp_bias")
    positions = fields.integer("max_position_embeddings", 8192, high=MAX_TOKENS)
    return EncoderConfig(
        architecture=fields.texts("architectures")[0],
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        intermediate_size=fields.integer("intermediate_size"),
        num_heads=fields.integer("num_attention_heads", high=MAX_HEADS),
        max_position_embeddings=positions,
        context_length=positions,
        layer_kinds=_kinds(fields),
        activation=fields.option("hidden_activation", ACTIVATIONS, "gelu"),
        gated_mlp=True,
        norm_eps=fields.number("norm_eps", 1e-5, low=0.0, high=1.0),
        norm_bias=fields.flag("norm_bias", False),
        norm_first=True,
        first_norm_idle=True,
        bias=False,
        positions="none",
        head=_head(fields),
    )


def weights(config: EncoderConfig) -> WeightMap:
    return encoder_weights(config, NAMES, optional_prefix="model.", ignored=IGNORED)


def _kinds(fields: Fields) -> tuple[EncoderLayerKind, ...]:
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    every = fields.integer("global_attn_every_n_layers", 3, high=MAX_LAYERS)  # sees all
    names = ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    if "layer_types" in fields:
        names = list(fields.options("layer_types", layers, THETA))
    windows = {"sliding_attention": fields.integer("local_attention", 128) // 2}
    return tuple(EncoderLayerKind(windows.get(name), _rope(fields, name)) for name in names)


def _rope(fields: Fields, name: str) -> RopeConfig:
    (key, theta), rope = THETA[name], fields.section("rope_parameters").section(name)
    rope.option("rope_type", ("default",), "default")
    head_dim = fields.integer("hidden_size") // fields.integer("num_attention_heads")
    return RopeConfig(head_dim, rope.number("rope_theta", fields.number(key, theta)))


def _head(fields: Fields) -> ClassifierHead | None:
    if not fields.texts("architectures")[0].endswith("ForSequenceClassification"):
        return None
    first = fields.option("classifier_activation", HEAD_ACTIVATIONS, "gelu")
    pooling = POOLINGS[fields.option("classifier_pooling", POOLINGS, "cls")]
    bias = fields.flag("classifier_bias", False)
    return ClassifierHead(num_labels(fields), first, bias, norm=True, pooling=pooling)
