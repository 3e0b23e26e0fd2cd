"""The encoder of T5, mT5 and umT5 by itself, which gives vectors."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures.t5 import read_encoder
from models.architectures.t5_names import encoder_names
from models.config.encoder import EncoderConfig
from models.weights.encoder import encoder_weights
from models.weights.sources import WeightMap

UMT5 = "UMT5EncoderModel"
ENCODERS = ("T5EncoderModel", "MT5EncoderModel", UMT5)
IGNORED = ("encoder.embed_tokens.weight", "lm_head.weight", "decoder.*")


def config(raw: Mapping[str, Any]) -> EncoderConfig:
    found = read_encoder(raw)
    by_layer = found.architecture == UMT5
    relative = found.relative and replace(found.relative, by_layer=by_layer)
    return replace(found, shared_embedding=False, relative=relative)


def weights(config: EncoderConfig) -> WeightMap:
    names = {"embedding": "shared", **encoder_names(config.gated_mlp)}
    return encoder_weights(config, names, optional_prefix="", ignored=IGNORED)
