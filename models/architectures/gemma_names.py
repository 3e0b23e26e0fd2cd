"""Tensors that Gemma 3n and Gemma 4 name alike, and those that they have for images and audio."""

from models.architectures.llama import LAYER
from models.config.decoder import ModelConfig
from models.weights.decoder import prefixed, weight_map
from models.weights.sources import Names, WeightMap

UNREAD = ("model.vision_tower.*", "model.audio_tower.*", "model.embed_vision.*",
          "model.embed_audio.*", "model.vision_embedder.*")  # fmt: skip
SHARED = ("k_proj.weight", "v_proj.weight", "k_norm.weight")  # unused, where a file has them
INPUT_NAMES: Names = {
    "layer_inputs.table": "model.embed_tokens_per_layer",
    "layer_inputs.projection": "model.per_layer_model_projection",
    "layer_inputs.norm": "model.per_layer_projection_norm",
    "layers.*.input_gate.gate": f"{LAYER}.per_layer_input_gate",
    "layers.*.input_gate.project": f"{LAYER}.per_layer_projection",
    "layers.*.input_gate.norm": f"{LAYER}.post_per_layer_input_norm",
}


def text_weights(
    config: ModelConfig, names: Names, more: bool, *, expert_rows: bool = False
) -> WeightMap:
    """Of a checkpoint of text alone or, with `more`, of images and audio too."""
    shared = [i for i, kind in enumerate(config.layer_kinds) if kind.shared]
    unread = [f"*.layers.{i}.self_attn.{name}" for i in shared for name in SHARED]
    if config.altup is not None and not config.altup.scaled:
        unread.append("*.altup.correct_output_scale")
    if not more:
        return weight_map(config, names, ignored=tuple(unread), expert_rows=expert_rows)
    names = prefixed(names, "model.language_model.", "model.")
    return weight_map(
        config, names, ignored=(*UNREAD, *unread), optional_prefix="", expert_rows=expert_rows
    )
