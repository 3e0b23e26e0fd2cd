"""DistilBERT: BERT without token types and without a pooler, under names of its own."""

from collections.abc import Mapping
from typing import Any

from models.config.encoder import ClassifierHead, EncoderConfig, EncoderLayerKind
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.config.label_names import num_labels
from models.layers.parts import ACTIVATIONS
from models.weights.encoder import EncoderNames, encoder_weights
from models.weights.sources import WeightMap

ENCODERS = ("DistilBertModel", "DistilBertForMaskedLM", "DistilBertForSequenceClassification")

LAYER = "distilbert.transformer.layer.*"
NAMES: EncoderNames = {
    "embedding": "distilbert.embeddings.word_embeddings",
    "position_embedding": "distilbert.embeddings.position_embeddings",
    "embedding_norm": "distilbert.embeddings.LayerNorm",
    "layers.*.qkv": tuple(f"{LAYER}.attention.{x}_lin" for x in "qkv"),
    "layers.*.o": f"{LAYER}.attention.out_lin",
    "layers.*.attention_norm": f"{LAYER}.sa_layer_norm",
    "layers.*.up": f"{LAYER}.ffn.lin1",
    "layers.*.down": f"{LAYER}.ffn.lin2",
    "layers.*.mlp_norm": f"{LAYER}.output_layer_norm",
    "head.first": "pre_classifier",
    "head.last": "classifier",
}
IGNORED = ("*embeddings.position_ids", "vocab_*")


def config(raw: Mapping[str, Any]) -> EncoderConfig:
    fields = Fields(raw)
    positions = fields.integer("max_position_embeddings", 512, high=MAX_TOKENS)
    architecture = fields.texts("architectures")[0]
    classifies = architecture.endswith("ForSequenceClassification")
    return EncoderConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("dim"),
        intermediate_size=fields.integer("hidden_dim"),
        num_heads=fields.integer("n_heads", high=MAX_HEADS),
        max_position_embeddings=positions,
        context_length=positions,
        layer_kinds=(EncoderLayerKind(),) * fields.integer("n_layers", high=MAX_LAYERS),
        activation=fields.option("activation", ACTIVATIONS, "gelu"),
        head=ClassifierHead(num_labels(fields), "relu") if classifies else None,
    )


def weights(config: EncoderConfig) -> WeightMap:
    return encoder_weights(config, NAMES, optional_prefix="distilbert.", ignored=IGNORED)
