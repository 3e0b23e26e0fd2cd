"""T5, FLAN-T5, UL2, mT5, umT5: RMS norms, no scale of scores, and a bias of them by distance."""

from collections.abc import Mapping
from typing import Any

from models.architectures.t5_names import IGNORED, names
from models.config.decoder import LayerKind, ModelConfig
from models.config.encoder import EncoderConfig, EncoderLayerKind
from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.layers.relative_bias import RelativeBias
from models.weights.encoder_decoder import encoder_decoder_weights
from models.weights.sources import WeightMap

UMT5 = "UMT5ForConditionalGeneration"
ARCHITECTURES = ("T5ForConditionalGeneration", "MT5ForConditionalGeneration", UMT5)

# feed_forward_proj: the name of the activation, and whether it is gated
MLPS = {"relu": ("relu", False), "gated-gelu": ("gelu_new", True), "gated-silu": ("silu", True)}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields, encoder = Fields(raw), read_encoder(raw)
    D, heads = encoder.hidden_size, encoder.num_heads
    own_layers = fields.integer("num_decoder_layers", encoder.num_layers, high=MAX_LAYERS)
    tied = fields.flag("tie_word_embeddings", True)
    start = fields.token_ids("decoder_start_token_id") or fields.token_ids("pad_token_id")
    return ModelConfig(
        architecture=fields.texts("architectures")[0],
        vocab_size=fields.integer("vocab_size"),
        hidden_size=D,
        intermediate_size=encoder.intermediate_size,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=encoder.head_dim,
        max_position_embeddings=MAX_TOKENS,  # distances have no end
        context_length=encoder.context_length,
        layer_kinds=(LayerKind(),) * own_layers,
        activation=encoder.activation,
        gated_mlp=encoder.gated_mlp,
        norm_eps=encoder.norm_eps,
        attention_scale=1.0,
        logit_scale=D**-0.5 if tied else 1.0,
        tied_head=tied,
        eos_token_ids=fields.token_ids("eos_token_id"),
        encoder=encoder,
        decoder_prompt=start or (0,),
        relative=encoder.relative,
    )


def weights(config: ModelConfig) -> WeightMap:
    return encoder_decoder_weights(config, *names(config), ignored=IGNORED, optional_prefix="")


def read_encoder(raw: Mapping[str, Any]) -> EncoderConfig:
    """The encoder, whose tokens the decoder's table embeds."""
    fields = Fields(raw)
    activation, gated = MLPS[fields.option("feed_forward_proj", MLPS, "relu")]
    layers = fields.integer("num_layers", high=MAX_LAYERS)
    length = fields.integer("n_positions", 512, high=MAX_TOKENS)
    architecture = fields.texts("architectures")[0]
    return EncoderConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("d_model"),
        intermediate_size=fields.integer("d_ff"),
        num_heads=fields.integer("num_heads", high=MAX_HEADS),
        head_size=fields.integer("d_kv", high=MAX_HEADS),
        max_position_embeddings=length,
        context_length=length,
        layer_kinds=(EncoderLayerKind(),) * layers,
        activation=activation,
        gated_mlp=gated,
        norm="rms",
        norm_eps=fields.number("layer_norm_epsilon", 1e-6, high=1.0),
        norm_first=True,
        bias=False,
        positions="none",
        embedding_norm=False,
        shared_embedding=True,
        attention_scale=1.0,
        relative=RelativeBias(
            fields.integer("relative_attention_num_buckets", 32, low=4),
            fields.integer("relative_attention_max_distance", 128, low=2, high=MAX_LAYERS**2),
            by_layer=architecture == UMT5,
        ),
    )
