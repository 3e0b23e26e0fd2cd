"""OLMo Hybrid: three layers of the gated delta rule to one of OLMo 3's attention."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.architectures import llama, olmo2
from models.config.decoder import ModelConfig
from models.config.fields import MAX_HEADS, MAX_LAYERS, Fields
from models.config.heads import read_head_dim
from models.config.hybrids import read_state_layers, with_states
from models.config.mixers import GatedDelta
from models.config.rope import read_rope
from models.errors import CheckpointError
from models.weights.decoder import weight_map
from models.weights.sources import Names, WeightMap

ARCHITECTURES = ("OlmoHybridForCausalLM",)
MIXER_EPS = 1e-5
MIXER = f"{llama.LAYER}.linear_attn"
NAMES: Names = {
    **olmo2.NAMES,
    "layers.*.mixer.input": tuple(f"{MIXER}.{x}_proj" for x in "qkvg"),
    "layers.*.mixer.rates": (f"{MIXER}.b_proj", f"{MIXER}.a_proj"),
    "layers.*.mixer.conv": tuple(f"{MIXER}.{x}_conv1d" for x in "qkv"),
    "layers.*.mixer.step_bias": f"{MIXER}.dt_bias",
    "layers.*.mixer.log_rate": f"{MIXER}.A_log",
    "layers.*.mixer.norm": f"{MIXER}.o_norm",
    "layers.*.mixer.output": f"{MIXER}.o_proj",
}
# transformers reads these names too, and writes them, with the convolution in three equal parts
WRITTEN: Names = {
    **NAMES,
    "layers.*.attention_norm": f"{llama.LAYER}.attention_layer_norm",
    "layers.*.attention_post_norm": f"{llama.LAYER}.feedforward_layer_norm",
    "layers.*.mlp_norm": f"{llama.LAYER}.feedforward_layer_norm",
}


def config(raw: Mapping[str, Any]) -> ModelConfig:
    fields = Fields(raw)
    layers = fields.integer("num_hidden_layers", high=MAX_LAYERS)
    stated = read_state_layers(fields) or _every_fourth(layers)
    rope = None if _unrotated(raw) else read_rope(fields, read_head_dim(fields))
    config = olmo2.dense(fields, ropes=[rope] * layers)
    config = with_states(config, stated, _mixer(fields, config))
    kinds = (replace(kind, norms="before" if kind.mixer else None) for kind in config.layer_kinds)
    return replace(config, layer_kinds=tuple(kinds))


def weights(config: ModelConfig) -> WeightMap:
    mixer = config.mixer
    if not isinstance(mixer, GatedDelta):
        return weight_map(config, NAMES)
    C = mixer.conv_channels
    third = -(-C // 3)
    written = replace(mixer, conv_parts=(third, third, C - 2 * third))
    other = weight_map(replace(config, mixer=written), WRITTEN)
    return replace(weight_map(config, NAMES), otherwise=other)


def _unrotated(raw: Mapping[str, Any]) -> bool:
    """A base that is null means something else than none."""
    settings = raw.get("rope_parameters")
    own = settings if isinstance(settings, Mapping) else raw
    return "rope_theta" in own and own["rope_theta"] is None


def _every_fourth(layers: int) -> tuple[bool, ...]:
    last = layers - 1 if layers < 4 else 3
    return tuple(layer % 4 != last for layer in range(layers))


def _mixer(fields: Fields, config: ModelConfig) -> GatedDelta:
    keys = fields.integer("linear_num_key_heads", config.num_heads, high=MAX_HEADS)
    values = fields.integer("linear_num_value_heads", config.num_heads, high=MAX_HEADS)
    size = max(1, int(0.75 * config.hidden_size / keys))
    size = fields.integer("linear_key_head_dim", size, high=MAX_HEADS)
    head_dim = fields.integer("linear_value_head_dim", 2 * size, high=MAX_HEADS)
    if values % keys:
        raise CheckpointError(
            f"{fields.where}: linear_num_value_heads is {values}; it must be a multiple of "
            f"linear_num_key_heads, which is {keys}."
        )
    width = fields.integer("linear_conv_kernel_dim", 4, low=2, high=16)
    most = 2.0 if fields.flag("linear_allow_neg_eigval", True) else 1.0
    parts = (keys * size, keys * size, values * head_dim)
    return GatedDelta(keys, values, size, head_dim, width, MIXER_EPS, most, conv_parts=parts)
