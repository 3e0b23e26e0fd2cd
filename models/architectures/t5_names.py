"""What the tensors of T5 and its relatives are called."""

from models.config.decoder import ModelConfig
from models.weights.encoder import EncoderNames
from models.weights.sources import Names

ENCODER, DECODER = "encoder.block.*", "decoder.block.*"
IGNORED = (
    "*coder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
)
BIAS = "layer.0.SelfAttention.relative_attention_bias"  # of the first layer, or of each


def names(config: ModelConfig) -> tuple[Names, EncoderNames]:
    """Of the tensors of the decoder, and of the encoder."""
    decoder: dict[str, str | tuple[str, ...]] = {
        "embedding": "shared",
        "head": "lm_head",
        "relative_bias": f"decoder.block.0.{BIAS}",
        "layers.*.attention_norm": f"{DECODER}.layer.0.layer_norm",
        "layers.*.attention.qkv": tuple(f"{DECODER}.layer.0.SelfAttention.{x}" for x in "qkv"),
        "layers.*.attention.o": f"{DECODER}.layer.0.SelfAttention.o",
        "layers.*.relative_bias": f"{DECODER}.{BIAS}",
        "layers.*.cross_norm": f"{DECODER}.layer.1.layer_norm",
        "layers.*.cross.q": f"{DECODER}.layer.1.EncDecAttention.q",
        "layers.*.cross.kv": tuple(f"{DECODER}.layer.1.EncDecAttention.{x}" for x in "kv"),
        "layers.*.cross.o": f"{DECODER}.layer.1.EncDecAttention.o",
        "layers.*.mlp_norm": f"{DECODER}.layer.2.layer_norm",
        "layers.*.mlp.up": f"{DECODER}.layer.2.DenseReluDense.wi",
        "layers.*.mlp.gate_up": tuple(f"{DECODER}.layer.2.DenseReluDense.wi_{n}" for n in "01"),
        "layers.*.mlp.down": f"{DECODER}.layer.2.DenseReluDense.wo",
        "norm": "decoder.final_layer_norm",
    }
    return decoder, encoder_names(config.gated_mlp)


def encoder_names(gated: bool) -> EncoderNames:
    """Of the tensors of the encoder, but for the embedding."""
    mlp = f"{ENCODER}.layer.1.DenseReluDense"
    return {
        "relative_bias": f"encoder.block.0.{BIAS}",
        "layers.*.qkv": tuple(f"{ENCODER}.layer.0.SelfAttention.{x}" for x in "qkv"),
        "layers.*.o": f"{ENCODER}.layer.0.SelfAttention.o",
        "layers.*.relative_bias": f"{ENCODER}.{BIAS}",
        "layers.*.attention_norm": f"{ENCODER}.layer.0.layer_norm",
        "layers.*.up": (f"{mlp}.wi_0", f"{mlp}.wi_1") if gated else f"{mlp}.wi",
        "layers.*.down": f"{mlp}.wo",
        "layers.*.mlp_norm": f"{ENCODER}.layer.1.layer_norm",
        "norm": "encoder.final_layer_norm",
    }
