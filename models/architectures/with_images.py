"""Gemma 3, Mistral Small 3.1, Ministral 3, LLaVA, Pixtral, Qwen2-VL to Qwen3-VL: the text models of
checkpoints that take images, each as its family has it. Tensors of images stay unread; without any,
the three positions of a token (mrope) are one, and rotate as that does."""

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from models.architectures import gemma2, gemma3, llama, ministral3, mistral, qwen2, qwen3
from models.config.decoder import ModelConfig
from models.config.fields import Fields
from models.weights.decoder import prefixed, weight_map
from models.weights.sources import WeightMap

GEMMA = "Gemma3ForConditionalGeneration"
TYPES: Mapping[str, Mapping[str, ModuleType]] = {  # of texts, by architecture; the first is usual
    GEMMA: {"gemma3_text": gemma3},
    "Mistral3ForConditionalGeneration": {"mistral": mistral, "ministral3": ministral3},
    "LlavaForConditionalGeneration": {
        "llama": llama, "mistral": mistral, "qwen2": qwen2, "qwen3": qwen3,
    },
    "Qwen2VLForConditionalGeneration": {"qwen2_vl_text": qwen2},
    "Qwen2_5_VLForConditionalGeneration": {"qwen2_5_vl_text": qwen2},
    "Qwen3VLForConditionalGeneration": {"qwen3_vl_text": qwen3},
}  # fmt: skip
ARCHITECTURES = tuple(TYPES)
FLAT = ("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration")
_LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "max_position_embeddings": 2048,
}  # fmt: skip
DEFAULTS: Mapping[str, Mapping[str, Any]] = {  # of a type's texts, what published files leave out
    "llama": _LLAMA,
    "mistral": {**_LLAMA, "intermediate_size": 14336, "num_key_value_heads": 8,
                "max_position_embeddings": 131072},
    "gemma3_text": {
        "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
    },
    "qwen2_vl_text": {"rope_theta": 1e6, "max_window_layers": 80, "rms_norm_eps": 1e-5},
    "qwen2_5_vl_text": {"rope_theta": 1e6, "max_window_layers": 80, "rms_norm_eps": 1e-5},
    "qwen3_vl_text": {"rope_theta": 5e5},
}  # fmt: skip
UNREAD = tuple(
    f"{inner}{name}.*" for inner in ("", "model.")
    for name in ("vision_tower", "multi_modal_projector", "visual")
)  # fmt: skip


def config(raw: Mapping[str, Any]) -> ModelConfig:
    outer = Fields(raw)
    name = outer.texts("architectures")[0]
    usual = next(iter(TYPES[name]))
    nested = "text_config" in outer or name not in FLAT  # early Qwen-VL files have all in one
    text = outer.section("text_config") if nested else outer.replaced("model_type", usual)
    kind = text.option("model_type", TYPES[name], usual)
    for key in ("tie_word_embeddings", "eos_token_id", "bos_token_id"):
        text = text.completed(key, raw[key]) if key in outer else text
    module = TYPES[name][kind]
    inner = {**DEFAULTS.get(kind, {}), **text.raw, **_rope(text)}
    made: ModelConfig = module.config({**inner, "architectures": [module.ARCHITECTURES[0]]})
    return replace(made, architecture=name)


def _rope(text: Fields) -> dict[str, Any]:
    """Settings of three positions, which are those of one."""
    found = {key: text.section(key).raw for key in ("rope_scaling", "rope_parameters")}
    return {
        key: {**settings, "type": "default", "rope_type": "default"}
        for key, settings in found.items()
        if "mrope" in (settings.get("type"), settings.get("rope_type"))
    }


def weights(config: ModelConfig) -> WeightMap:
    """As published, or as transformers 5 writes them."""
    names = gemma2.NAMES if config.architecture == GEMMA else llama.NAMES
    first = names if config.architecture in FLAT else prefixed(names, "language_model.")
    newer = prefixed(names, "model.language_model.", "model.")
    usual, other = (
        weight_map(config, one, ignored=UNREAD, optional_prefix="") for one in (first, newer)
    )
    return replace(usual, otherwise=other)
