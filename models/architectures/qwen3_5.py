"""Qwen3.5's text models: Qwen3-Next's layers with a dense MLP, and tensors one by one. Of
checkpoints that take images, tensors of vision stay unread."""

from collections.abc import Mapping
from typing import Any

from models.architectures import llama, qwen3_next
from models.architectures.qwen3_next import MIXER
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import prefixed, weight_map
from models.weights.sources import Names, WeightMap

WITH_IMAGES = "Qwen3_5ForConditionalGeneration"
ARCHITECTURES = ("Qwen3_5ForCausalLM", WITH_IMAGES)
UNREAD = ("mtp.*", "model.visual.*")  # further tokens, and images
NAMES: Names = {
    **qwen3_next.NAMES,
    **{key: name for key, name in llama.NAMES.items() if ".mlp." in key},
    "layers.*.mixer.input": (f"{MIXER}.in_proj_qkv", f"{MIXER}.in_proj_z"),
    "layers.*.mixer.rates": (f"{MIXER}.in_proj_b", f"{MIXER}.in_proj_a"),
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    return qwen3_next.gated(read_text(raw, qwen3_next.DEFAULTS, WITH_IMAGES), grouped=False)


def read_text(raw: Mapping[str, Any], defaults: Mapping[str, Any], with_images: str) -> Fields:
    """The text model's keys: all, or a section of a checkpoint that takes images as well."""
    text = Fields(raw)
    if with_images in text.texts("architectures"):
        tied = text.flag("tie_word_embeddings", False)
        text = text.section("text_config").replaced("architectures", [with_images])
        text = text.completed("tie_word_embeddings", tied)
    return Fields({**defaults, **text.raw}, text.where)


def weights(config: ModelConfig) -> WeightMap:
    return text_weights(config, NAMES, with_images=config.architecture == WITH_IMAGES)


def text_weights(
    config: ModelConfig, names: Names, *, with_images: bool, expert_rows: bool = False
) -> WeightMap:
    """Those of a text model by itself, or inside of one that takes images."""
    if not with_images:
        return weight_map(config, names, ignored=UNREAD)
    inner = prefixed(names, "model.language_model.", "model.")
    return weight_map(config, inner, ignored=UNREAD, optional_prefix="", expert_rows=expert_rows)
