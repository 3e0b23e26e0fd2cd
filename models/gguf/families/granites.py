"""Granite with windows, with experts or without: sinks, and layers that are not rotated.

Owns its row. Refuses to know the file, and JAX.
Source: `GraniteSWAModel` and `GraniteMoeSWAModel` of llama.cpp's `conversion/granite.py`.
"""

from collections.abc import Mapping

from models.config.fields import Fields
from models.errors import UnsupportedError
from models.gguf.by_layer import pattern
from models.gguf.families.mixtures import GRANITE_KEYS, gate_up, granite_scores
from models.gguf.families.stated import BIASES, Found, Stated, Tensors
from models.gguf.tensors.names import LAYER, LLAMA, Converted

_MOE, _SHARED = f"{LAYER}.block_sparse_moe", f"{LAYER}.shared_mlp"
_NAMES = {
    **LLAMA,
    "blk.*.attn_sinks.weight": f"{LAYER}.self_attn.sinks",
    "blk.*.ffn_gate_inp": f"{_MOE}.router",
    "blk.*.ffn_down_exps.weight": f"{_MOE}.experts.down_proj",
    "blk.*.ffn_up_shexp": f"{_SHARED}.input_linear",
    "blk.*.ffn_down_shexp": f"{_SHARED}.output_linear",
}
_ROTATED = "attention.rope_pattern"


def _granite(fields: Fields, tensors: Tensors, found: Found) -> Found:
    rotated, layers = fields.raw.get(_ROTATED), found["num_hidden_layers"]
    if not isinstance(rotated, list) or len(rotated) != layers:
        raise UnsupportedError(
            f"{fields.where} does not list in {_ROTATED} which of its {layers} layers are rotated: "
            "its converter leaves out the bases of single layers; use the model's safetensors."
        )
    more = granite_scores(fields, tensors, found)
    if found["num_local_experts"]:
        more["architectures"] = ["GraniteMoeSWAForCausalLM"]
    theta = found["rope_theta"]
    return more | pattern(fields, 4) | {"layer_rope_theta": [theta * bool(one) for one in rotated]}


GRANITES: Mapping[str, Stated] = {
    "granite_swa": Stated(
        "GraniteSWAForCausalLM",
        Converted(_NAMES, paired=True, joined=(gate_up(f"{_MOE}.experts.gate_up_proj"),)),
        {**GRANITE_KEYS, "attention.sliding_window": "sliding_window"},
        present=BIASES,
        more=_granite,
        reads=("attention.scale",),
    ),
}
