"""Whisper: an encoder of 30 seconds of audio, BART's decoder with norms before, keys unbiased."""

from collections.abc import Mapping
from typing import Any

from models.architectures import bart
from models.architectures.bart_names import ENCODER_NAMES, NAMES
from models.config.decoder import ModelConfig
from models.config.encoder import EncoderConfig, EncoderLayerKind
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.layers.parts import ACTIVATIONS
from models.weights.encoder_decoder import encoder_decoder_weights
from models.weights.sources import WeightMap

ARCHITECTURES = ("WhisperForConditionalGeneration",)

IGNORED = ("proj_out.weight",)
STEM = {"stem.first": "model.encoder.conv1", "stem.second": "model.encoder.conv2"}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    fields.required("tie_word_embeddings")
    return bart.decoder(
        fields,
        positions=fields.integer("max_target_positions", 448, high=MAX_TOKENS),
        offset=0,
        norm_sums=False,
        embedding_norm=False,
        key_bias=False,
        head_bias=False,
        encoder=_encoder(fields),
    )


def weights(config: ModelConfig) -> WeightMap:
    names = {**NAMES, "embedding": "model.decoder.embed_tokens", "head": "proj_out"}
    return encoder_decoder_weights(config, names, {**ENCODER_NAMES, **STEM}, ignored=IGNORED)


def _encoder(fields: Fields) -> EncoderConfig:
    positions = fields.integer("max_source_positions", 1500, high=MAX_TOKENS)
    return EncoderConfig(
        architecture=fields.texts("architectures")[0],
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("d_model"),
        intermediate_size=fields.integer("encoder_ffn_dim"),
        num_heads=fields.integer("encoder_attention_heads", high=MAX_HEADS),
        max_position_embeddings=positions,
        context_length=positions,
        layer_kinds=(EncoderLayerKind(),) * fields.integer("encoder_layers", high=MAX_LAYERS),
        activation=fields.option("activation_function", ACTIVATIONS, "gelu"),
        norm_eps=bart.EPS,
        norm_first=True,
        embedding_norm=False,
        shared_embedding=True,
        key_bias=False,
        mel_bins=fields.integer("num_mel_bins", 80, high=MAX_HEADS),
        median_filter_width=fields.integer("median_filter_width", 7, high=MAX_HEADS),
    )
