"""Which parameters a model with encoder and decoder has, and from which tensors each is made."""

from dataclasses import replace
from typing import Any

from models.config.decoder import ModelConfig
from models.weights.decoder import weight_map
from models.weights.encoder import EncoderNames, encoder_entries, without_part
from models.weights.sources import Names, Part, Source, WeightMap

LOGITS_BIAS = "final_logits_bias"  # [1, V]


def encoder_decoder_weights(
    config: ModelConfig,
    names: Names,
    encoder_names: EncoderNames,
    *,
    ignored: tuple[str, ...] = (),
    optional_prefix: str = "model.",
) -> WeightMap:
    """Sources of the parameters of decoder and encoder; arguments as of `weight_map`."""
    if config.encoder is None:
        raise TypeError(f"{config.architecture} has no encoder")
    decoder = weight_map(config, names, ignored=ignored, optional_prefix=optional_prefix)
    sources: dict[str, Any] = dict(decoder.sources)
    sources |= dict(encoder_entries(config.encoder, encoder_names, "encoder"))
    for path in sources if not config.key_bias else ():
        if path.startswith("layers.") and path.endswith(("qkv.bias", "kv.bias")):
            sources[path] = without_part(sources[path], int(path.endswith("qkv.bias")))
    if config.head_bias and config.tied_head:
        sources["logits_bias"] = Source((Part(LOGITS_BIAS, config.vocab_size),), entry=0)
    return replace(decoder, sources=sources)
