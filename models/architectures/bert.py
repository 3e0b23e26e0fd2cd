"""BERT, and what is built like it: learned positions, token types, norms behind each part."""

from collections.abc import Mapping
from typing import Any

from models.config.encoder import ClassifierHead, EncoderConfig, EncoderLayerKind
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.config.label_names import num_labels
from models.layers.parts import ACTIVATIONS
from models.weights.encoder import EncoderNames, encoder_weights
from models.weights.sources import WeightMap

ENCODERS = ("BertModel", "BertForMaskedLM", "BertForSequenceClassification")

LAYER = "encoder.layer.*"


def names(prefix: str) -> EncoderNames:
    """Of the tensors in BERT's family, whose body is called `prefix`."""
    layer = f"{prefix}{LAYER}"
    return {
        "embedding": f"{prefix}embeddings.word_embeddings",
        "position_embedding": f"{prefix}embeddings.position_embeddings",
        "type_embedding": f"{prefix}embeddings.token_type_embeddings",
        "embedding_norm": f"{prefix}embeddings.LayerNorm",
        "layers.*.qkv": tuple(f"{layer}.attention.self.{x}" for x in ("query", "key", "value")),
        "layers.*.o": f"{layer}.attention.output.dense",
        "layers.*.attention_norm": f"{layer}.attention.output.LayerNorm",
        "layers.*.up": f"{layer}.intermediate.dense",
        "layers.*.down": f"{layer}.output.dense",
        "layers.*.mlp_norm": f"{layer}.output.LayerNorm",
    }


NAMES = {**names("bert."), "head.first": "bert.pooler.dense", "head.last": "classifier"}
IGNORED = ("*embeddings.position_ids", "*pooler.dense.*", "cls.*")


def config(raw: Mapping[str, Any]) -> EncoderConfig:
    return encoder(Fields(raw))


def weights(config: EncoderConfig) -> WeightMap:
    return encoder_weights(config, NAMES, optional_prefix="bert.", ignored=IGNORED)


def encoder(fields: Fields, *, offset: int = 0) -> EncoderConfig:
    """The keys that BERT's family has; `offset` is the row of the first position."""
    fields.refuse("is_decoder", "add_cross_attention")
    fields.option("position_embedding_type", ("absolute",), "absolute")
    positions = fields.integer("max_position_embeddings", 512, high=MAX_TOKENS)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    architecture = fields.texts("architectures")[0]
    classifies = architecture.endswith("ForSequenceClassification")
    return EncoderConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        intermediate_size=fields.integer("intermediate_size"),
        num_heads=fields.integer("num_attention_heads", high=MAX_HEADS),
        max_position_embeddings=positions,
        context_length=positions - offset,
        layer_kinds=(EncoderLayerKind(),) * layers,
        activation=fields.option("hidden_act", ACTIVATIONS, "gelu"),
        norm_eps=fields.number("layer_norm_eps", 1e-12, low=0.0, high=1.0),
        position_offset=offset,
        token_types=fields.integer("type_vocab_size", 2, low=0),
        head=ClassifierHead(num_labels(fields), "tanh") if classifies else None,
    )
