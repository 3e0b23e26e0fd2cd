"""BART and mBART: learned positions that begin two rows late; mBART norms before, BART behind."""

from collections.abc import Mapping
from typing import Any

from models.architectures.bart_names import ENCODER_NAMES, IGNORED, NAMES
from models.config.decoder import LayerKind, ModelConfig
from models.config.encoder import EncoderConfig, EncoderLayerKind
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.layers.parts import ACTIVATIONS
from models.weights.encoder_decoder import encoder_decoder_weights
from models.weights.sources import WeightMap

ARCHITECTURES = ("BartForConditionalGeneration", "MBartForConditionalGeneration")

OFFSET = 2  # rows of the tables before that of position 0
EPS = 1e-5


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    fields.required("tie_word_embeddings")
    behind = fields.texts("architectures")[0].startswith("Bart")
    positions = fields.integer("max_position_embeddings", 1024, high=MAX_TOKENS)
    encoder = _encoder(fields, fields.integer("d_model"), positions, behind)
    return decoder(
        fields, positions=positions, offset=OFFSET, norm_sums=behind, embedding_norm=True,
        head_bias=True, encoder=encoder,
    )  # fmt: skip


def decoder(fields: Fields, *, positions: int, offset: int, **switches: Any) -> ModelConfig:
    """What BART and Whisper have in common."""
    D, heads = fields.integer("d_model"), fields.integer("decoder_attention_heads", high=MAX_HEADS)
    eos = fields.token_ids("eos_token_id")
    start = fields.token_ids("decoder_start_token_id") or eos
    return ModelConfig(
        architecture=fields.texts("architectures")[0],
        vocab_size=fields.integer("vocab_size"),
        hidden_size=D,
        intermediate_size=fields.integer("decoder_ffn_dim"),
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=D // heads,
        max_position_embeddings=positions,
        context_length=positions,
        layer_kinds=(LayerKind(),) * fields.integer("decoder_layers", high=MAX_LAYERS),
        activation=fields.option("activation_function", ACTIVATIONS, "gelu"),
        gated_mlp=False,
        norm="layer",
        norm_eps=EPS,
        norm_bias=True,
        qkv_bias=True,
        o_bias=True,
        mlp_bias=True,
        learned_positions=True,
        position_offset=offset,
        embedding_scale=D**0.5 if fields.flag("scale_embedding", False) else 1.0,
        tied_head=True,
        bos_token_id=next(iter(fields.token_ids("bos_token_id")), None),
        eos_token_ids=eos,
        decoder_prompt=start[:1] + fields.token_ids("forced_bos_token_id")[:1],
        **switches,
    )


def weights(config: ModelConfig) -> WeightMap:
    return encoder_decoder_weights(config, NAMES, ENCODER_NAMES, ignored=IGNORED)


def _encoder(fields: Fields, D: int, positions: int, behind: bool) -> EncoderConfig:
    layers = fields.integer("encoder_layers", high=MAX_LAYERS)
    return EncoderConfig(
        architecture=fields.texts("architectures")[0],
        vocab_size=fields.integer("vocab_size"),
        hidden_size=D,
        intermediate_size=fields.integer("encoder_ffn_dim"),
        num_heads=fields.integer("encoder_attention_heads", high=MAX_HEADS),
        max_position_embeddings=positions + OFFSET,
        context_length=positions,
        layer_kinds=(EncoderLayerKind(),) * layers,
        activation=fields.option("activation_function", ACTIVATIONS, "gelu"),
        norm_eps=EPS,
        norm_first=not behind,
        position_offset=OFFSET,
        shared_embedding=True,
    )
