"""Qwen3-Next and Qwen3.5, with layers of the gated delta rule.

    Qwen3-Next   queries, keys, values and gates lie by kind, not by heads of keys
    Qwen3.5      heads of values lie by their number among those of a head of keys:
                 0 2 4 1 3 5 for 3 heads of keys and 6 of values

Owns a row for each, and undoing that. Refuses to know the file, and JAX.
Source: `Qwen3NextModel` and `_LinearAttentionVReorderBase` of llama.cpp's `conversion/qwen.py`.
"""

from collections.abc import Mapping

from models.config.fields import Fields
from models.errors import CheckpointError
from models.gguf.families.mixtures import routed
from models.gguf.families.stated import ATTENTION_BIAS, Found, Stated, Tensors, layers_with
from models.gguf.tensors.joining import Join, by_key_head
from models.gguf.tensors.names import LAYER, LLAMA, Converted, Undo, plain
from models.gguf.tensors.undoing import LogRates, Reordered, ReorderedInputs, convolution, flat
from models.quantised.tensors import Readable

_MIXER, _MLP = f"{LAYER}.linear_attn", f"{LAYER}.mlp"
_DELTA = {
    **{key: name for key, name in LLAMA.items() if key != "blk.*.ffn_norm"},
    "blk.*.post_attention_norm": f"{LAYER}.post_attention_layernorm",
    "blk.*.ssm_conv1d": f"{_MIXER}.conv1d",
    "blk.*.ssm_dt.bias": f"{_MIXER}.dt_bias",
    "blk.*.ssm_a": f"{_MIXER}.A_log",
    "blk.*.ssm_norm": f"{_MIXER}.norm",
    "blk.*.ssm_out": f"{_MIXER}.out_proj",
}
_EXPERTS = {
    **routed(_MLP, "shared_expert"),
    "blk.*.ffn_gate_inp_shexp": f"{_MLP}.shared_expert_gate",
}
_NEXT = {**_DELTA, **_EXPERTS, "blk.*.ssm_in": f"{_MIXER}.in_proj_qkvz",
         "blk.*.ssm_ba": f"{_MIXER}.in_proj_ba"}  # fmt: skip
_SINGLE = {
    **_DELTA,
    "blk.*.attn_qkv": f"{_MIXER}.in_proj_qkv",
    "blk.*.attn_gate": f"{_MIXER}.in_proj_z",
    "blk.*.ssm_beta": f"{_MIXER}.in_proj_b",
    "blk.*.ssm_alpha": f"{_MIXER}.in_proj_a",
}
_QKVZ = Join(
    f"{_MIXER}.in_proj_qkvz.weight",
    ("blk.*.attn_qkv.weight", "blk.*.attn_gate.weight"),
    by_key_head,
    unless="blk.*.ssm_in.weight",
)


def _heads(fields: Fields) -> tuple[int, int, int]:
    """Heads of keys, heads of values, and the size of one of values; raises CheckpointError."""
    keys, values = fields.integer("ssm.group_count"), fields.integer("ssm.time_step_rank")
    inner = fields.integer("ssm.inner_size")
    if values % keys or inner % values:
        raise CheckpointError(
            f"{fields.where}: ssm.time_step_rank is {values}; it must be a multiple of "
            f"ssm.group_count, which is {keys}, and divide ssm.inner_size, which is {inner}."
        )
    return keys, values, inner // values


def _order(fields: Fields) -> tuple[int, ...]:
    """Where the file has each head of values."""
    keys, values, _ = _heads(fields)
    each = values // keys
    return tuple(head % each * keys + head // each for head in range(values))


def _reordered(tensor: Readable, fields: Fields, size: int, before: int = 0) -> Readable:
    rows = before + size * _heads(fields)[1]
    if tensor.shape[0] != rows:
        raise CheckpointError(
            f"Tensor {tensor.name!r} of {fields.where} has {tensor.shape[0]} rows, and its keys "
            f"call for {rows}; convert the model again."
        )
    return Reordered(tensor, _order(fields), size, before)


def _values(tensor: Readable, fields: Fields) -> Readable:
    return _reordered(tensor, fields, _heads(fields)[2])


def _queries_keys_values(tensor: Readable, fields: Fields) -> Readable:
    keys, _, size = _heads(fields)
    return _reordered(tensor, fields, size, 2 * keys * fields.integer("ssm.state_size"))


def _each(tensor: Readable, fields: Fields) -> Readable:
    return _reordered(tensor, fields, 1)


def _outputs(tensor: Readable, fields: Fields) -> Readable:
    if tensor.shape[1:] != (fields.integer("ssm.inner_size"),):
        raise CheckpointError(
            f"Tensor {tensor.name!r} of {fields.where} has the shape {list(tensor.shape)}, and "
            "ssm.inner_size says otherwise; convert the model again."
        )
    return ReorderedInputs(tensor, _order(fields), _heads(fields)[2])


def _kept(tensor: Readable) -> Readable:
    """Of a norm that no 1 is added to."""
    return tensor


_UNDONE: Mapping[str, Undo] = {
    "blk.*.ssm_a": lambda tensor, fields: LogRates(flat(tensor)),
    "blk.*.ssm_conv1d.weight": plain(convolution),
    "blk.*.ssm_norm.weight": plain(_kept),
}
_UNDONE_ORDER: Mapping[str, Undo] = {
    **_UNDONE,
    "blk.*.ssm_a": lambda tensor, fields: LogRates(_each(flat(tensor), fields)),
    "blk.*.ssm_dt.bias": _each,
    "blk.*.ssm_conv1d.weight": lambda t, fields: convolution(_queries_keys_values(t, fields)),
    "blk.*.attn_qkv.weight": _queries_keys_values,
    "blk.*.attn_gate.weight": _values,
    "blk.*.ssm_beta.weight": _each,
    "blk.*.ssm_alpha.weight": _each,
    "blk.*.ssm_out.weight": _outputs,
}


def _layers(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Which layers attend, and which have no experts."""
    layers = found["num_hidden_layers"]
    attend = layers_with(tensors, "attn_q.weight", layers)
    sparse = layers_with(tensors, "ffn_gate_inp.weight", layers)
    return {
        "layer_types": ["full_attention" if one else "linear_attention" for one in attend],
        "linear_value_head_dim": _heads(fields)[2],
        "mlp_only_layers": [layer for layer, one in enumerate(sparse) if not one],
    }


_KEYS = {
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.group_count": "linear_num_key_heads",
    "ssm.time_step_rank": "linear_num_value_heads",
}
_EXPERT_KEYS = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
_SECTIONS = ("rope.dimension_sections",)  # of text all turn by one position
_REORDERED = Converted({**_SINGLE, **_EXPERTS}, norm_offset=True, undone=_UNDONE_ORDER)
DELTAS: Mapping[str, Stated] = {
    "qwen3next": Stated(
        "Qwen3NextForCausalLM",
        Converted(_NEXT, norm_offset=True, undone=_UNDONE, joined=(_QKVZ,)),
        {**_KEYS, **_EXPERT_KEYS}, ATTENTION_BIAS, {"norm_topk_prob": True}, more=_layers,
    ),
    "qwen35": Stated(
        "Qwen3_5ForCausalLM", _REORDERED, _KEYS, ATTENTION_BIAS, more=_layers, reads=_SECTIONS
    ),
    "qwen35moe": Stated(
        "Qwen3_5MoeForCausalLM", _REORDERED, {**_KEYS, **_EXPERT_KEYS}, ATTENTION_BIAS,
        {"norm_topk_prob": True}, more=_layers, reads=_SECTIONS,
    ),
}  # fmt: skip
