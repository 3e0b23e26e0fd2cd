"""Families whose scores grow with the position: Llama 4 and Ministral 3.

Owns a row for each, and what llama.cpp takes for granted of Llama 4, whose files do not say it.
Refuses to know the file, and JAX.
Source: llama.cpp's `conversion/llama4.py` and `mistral3.py`, `src/models/llama4.cpp`.
"""

from collections.abc import Mapping, Sequence

from models.config.fields import MAX_TOKENS, Fields
from models.errors import UnsupportedError
from models.gguf.families.mixtures import OF_LOCAL, YARN, gate_up
from models.gguf.families.stated import SIGMOID, Found, Stated, Tensors, layers_with
from models.gguf.tensors.joining import concatenated
from models.gguf.tensors.names import LAYER, LLAMA, Converted, plain
from models.gguf.tensors.undoing import EachTurned
from models.quantised.tensors import Readable

_BLOCK = f"{LAYER}.feed_forward"
_MATRICES = ("gate", "up", "down")
_LLAMA_4 = {
    **LLAMA,
    **{f"blk.*.ffn_{x}": f"{_BLOCK}.{x}_proj" for x in _MATRICES},
    **{f"blk.*.ffn_{x}_shexp": f"{_BLOCK}.shared_expert.{x}_proj" for x in _MATRICES},
    "blk.*.ffn_gate_inp": f"{_BLOCK}.router",
    "blk.*.ffn_down_exps.weight": f"{_BLOCK}.experts.down_proj",
}
_TEMPERATURE = "attention.temperature_scale"
_TRAINED = "rope.scaling.original_context_length"
_MAVERICK = 128  # experts of the model whose queries and keys are not normed


def _turned(tensor: Readable) -> Readable:
    return EachTurned(tensor) if len(tensor.shape) == 3 else tensor


def _gate_up(name: str, tensors: Sequence[Readable], fields: Fields) -> Readable:
    return _turned(concatenated(name, tensors, fields))


def _llama_4(fields: Fields, tensors: Tensors, found: Found) -> Found:
    if "attention.sliding_window" in fields:
        raise UnsupportedError(
            f"{fields.where} has attention.sliding_window, so its layers are not in chunks, which "
            "is not supported of Llama 4; use the model's safetensors."
        )
    sparse = layers_with(tensors, "ffn_gate_inp.weight", found["num_hidden_layers"])
    return {
        "intermediate_size_mlp": fields.integer("feed_forward_length"),
        "intermediate_size": fields.integer("expert_feed_forward_length"),
        "moe_layers": [layer for layer, one in enumerate(sparse) if one],
        "use_qk_norm": found["num_local_experts"] != _MAVERICK,
    }


def _ministral_3(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Without the growth it is a Mistral."""
    if not fields.raw.get(_TEMPERATURE):
        fields.refuse(YARN)
        return {"architectures": ["MistralForCausalLM"]}
    scaling = found["rope_scaling"]
    if scaling is None or scaling["type"] != "yarn":
        raise UnsupportedError(
            f"{fields.where} has {_TEMPERATURE} without rope.scaling.type yarn, which is not "
            "supported; use the model's safetensors."
        )
    magnitude = fields.number(YARN, 1.0)
    return {
        "rope_scaling": None,
        "rope_parameters": {
            **{key: one for key, one in scaling.items() if key != "type"},
            "rope_type": "yarn",
            "rope_theta": found["rope_theta"],
            "original_max_position_embeddings": fields.integer(_TRAINED, high=MAX_TOKENS),
            "mscale": magnitude,
            "mscale_all_dim": magnitude,
            "llama_4_scaling_beta": fields.number(_TEMPERATURE),
        },
    }


GROWING: Mapping[str, Stated] = {
    "llama4": Stated(
        "Llama4ForCausalLM",
        Converted(
            _LLAMA_4,
            undone={"blk.*.ffn_down_exps.weight": plain(_turned)},
            joined=(gate_up(f"{_BLOCK}.experts.gate_up_proj", made=_gate_up),),
        ),
        OF_LOCAL,
        more=_llama_4, gating=SIGMOID,
        reads=("interleave_moe_layer_step", "attention.sliding_window"),
    ),
    "mistral3": Stated(
        "Ministral3ForCausalLM", Converted(LLAMA, paired=True), more=_ministral_3,
        reads=(_TEMPERATURE, YARN),
    ),
}  # fmt: skip
