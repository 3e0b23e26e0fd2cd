"""Families whose layers have states: Mamba, and hybrids of it, of convolutions, of delta rules.

Owns a row for each, and which of their layers attend. Refuses to know the file, and JAX.
Source: `MODEL_TENSORS` of the package gguf; llama.cpp's `conversion/` and `src/models/`.
"""

from collections.abc import Mapping, Sequence

from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError
from models.gguf.families.deltas import DELTAS
from models.gguf.families.mixtures import DEEPSEEK as ROUTED_KEYS
from models.gguf.families.mixtures import (
    GRANITE,
    GRANITE_JOINS,
    GRANITE_KEYS,
    GRANITE_SHARED,
    gate_up,
    granite_scores,
)
from models.gguf.families.stated import BIASES, SIGMOID, Found, Stated, Tensors, layers_with
from models.gguf.tensors.names import LAYER, LLAMA, Converted, Undo, plain
from models.gguf.tensors.undoing import LogRates, convolution, flat


def _selective(mixer: str) -> dict[str, str]:
    """Mamba's scan."""
    return {
        "blk.*.ssm_in": f"{mixer}.in_proj",
        "blk.*.ssm_conv1d": f"{mixer}.conv1d",
        "blk.*.ssm_x": f"{mixer}.x_proj",
        "blk.*.ssm_dt": f"{mixer}.dt_proj",
        "blk.*.ssm_dt_norm": f"{mixer}.dt_layernorm",
        "blk.*.ssm_b_norm": f"{mixer}.b_layernorm",
        "blk.*.ssm_c_norm": f"{mixer}.c_layernorm",
        "blk.*.ssm_a": f"{mixer}.A_log",
        "blk.*.ssm_d": f"{mixer}.D",
        "blk.*.ssm_out": f"{mixer}.out_proj",
    }


def _dual(mixer: str) -> dict[str, str]:
    """Mamba-2's."""
    return {
        "blk.*.ssm_in": f"{mixer}.in_proj",
        "blk.*.ssm_conv1d": f"{mixer}.conv1d",
        "blk.*.ssm_dt.bias": f"{mixer}.dt_bias",
        "blk.*.ssm_a": f"{mixer}.A_log",
        "blk.*.ssm_d": f"{mixer}.D",
        "blk.*.ssm_norm": f"{mixer}.norm",
        "blk.*.ssm_out": f"{mixer}.out_proj",
    }


_SELECTIVE: Mapping[str, Undo] = {
    "blk.*.ssm_a": plain(LogRates), "blk.*.ssm_conv1d.weight": plain(convolution),
}  # fmt: skip
_DUAL: Mapping[str, Undo] = {
    "blk.*.ssm_a": lambda tensor, fields: LogRates(flat(tensor)),
    "blk.*.ssm_d": plain(flat),
    "blk.*.ssm_norm.weight": plain(flat),
    "blk.*.ssm_conv1d.weight": plain(convolution),
}
_BACKBONE = {
    "token_embd": "backbone.embeddings",
    "output_norm": "backbone.norm_f",
    "output": "lm_head",
    "blk.*.attn_norm": "backbone.layers.*.norm",
}
_MIXER = "backbone.layers.*.mixer"
_MAMBA, _MAMBA_2 = {**_BACKBONE, **_selective(_MIXER)}, {**_BACKBONE, **_dual(_MIXER)}
_FEED = {  # Jamba's and Bamba's
    **LLAMA,
    "output_norm": "model.final_layernorm",
    "blk.*.ffn_norm": f"{LAYER}.pre_ff_layernorm",
    "blk.*.ffn_gate_inp": f"{LAYER}.feed_forward.router",
    **{f"blk.*.ffn_{x}": f"{LAYER}.feed_forward.{x}_proj" for x in ("gate", "up", "down")},
    **{
        f"blk.*.ffn_{x}_exps": f"{LAYER}.feed_forward.experts.#.{x}_proj"
        for x in ("gate", "up", "down")
    },
}
_JAMBA = {**_FEED, **_selective(f"{LAYER}.mamba")}
_FALCON_H1 = {
    **_FEED,
    **_dual(f"{LAYER}.mamba"),
    "blk.*.ffn_norm": f"{LAYER}.pre_ff_layernorm.weight",  # without .weight in its files
    "blk.*.ffn_norm.weight": f"{LAYER}.pre_ff_layernorm.weight",
}
_GRANITE = {
    **GRANITE,
    **_dual(f"{LAYER}.mamba"),
    "blk.*.ffn_down": f"{LAYER}.shared_mlp.output_linear",
}
_NEMOTRON = {
    **_MAMBA_2,
    **{f"blk.*.attn_{x}": f"{_MIXER}.{x}_proj" for x in "qkv"},
    "blk.*.attn_output": f"{_MIXER}.o_proj",
    "blk.*.ffn_gate_inp": f"{_MIXER}.gate",
    "blk.*.exp_probs_b.bias": f"{_MIXER}.gate.e_score_correction_bias",
    "blk.*.ffn_latent_down": f"{_MIXER}.fc1_latent_proj",
    "blk.*.ffn_latent_up": f"{_MIXER}.fc2_latent_proj",
    **{f"blk.*.ffn_{x}": f"{_MIXER}.{x}_proj" for x in ("up", "down")},
    **{f"blk.*.ffn_{x}_exps": f"{_MIXER}.experts.#.{x}_proj" for x in ("up", "down")},
    **{f"blk.*.ffn_{x}_shexp": f"{_MIXER}.shared_experts.{x}_proj" for x in ("up", "down")},
}
_ATTENTION, _MLP = f"{LAYER}.self_attn", f"{LAYER}.feed_forward"
_LFM_2 = {
    **LLAMA,
    "token_embd_norm": "model.embedding_norm",
    "output_norm": "model.embedding_norm",  # as newer files call it
    "blk.*.attn_norm": f"{LAYER}.operator_norm",
    "blk.*.attn_q_norm": f"{_ATTENTION}.q_layernorm",
    "blk.*.attn_k_norm": f"{_ATTENTION}.k_layernorm",
    "blk.*.attn_output": f"{_ATTENTION}.out_proj",
    "blk.*.ffn_norm": f"{LAYER}.ffn_norm",
    "blk.*.shortconv.in_proj": f"{LAYER}.conv.in_proj",
    "blk.*.shortconv.conv": f"{LAYER}.conv.conv",
    "blk.*.shortconv.out_proj": f"{LAYER}.conv.out_proj",
    "blk.*.ffn_gate_inp": f"{_MLP}.gate",
    "blk.*.exp_probs_b.bias": f"{_MLP}.expert_bias",
    **{
        f"blk.*.ffn_{theirs}{suffix}": f"{_MLP}{inner}.{ours}"
        for theirs, ours in (("gate", "w1"), ("down", "w2"), ("up", "w3"))
        for suffix, inner in (("", ""), ("_exps", ".experts.#"))
    },
}
_SHORT = Converted(_LFM_2, undone={"blk.*.shortconv.conv.weight": plain(convolution)})

_PURE_KEYS = {"ssm.conv_kernel": "conv_kernel", "ssm.state_size": "state_size"}
_PURE_FLAGS = {"use_conv_bias": "blk.*.ssm_conv1d.bias", "use_bias": "blk.*.ssm_in.bias"}
_PURE_NAMES = {"rms_norm_eps": "layer_norm_epsilon"}
_SCAN_KEYS = {
    "ssm.conv_kernel": "mamba_d_conv",
    "ssm.state_size": "mamba_d_state",
    "ssm.group_count": "mamba_n_groups",
    "ssm.time_step_rank": "mamba_n_heads",
    "ssm.inner_size": "mamba_d_ssm",
}
_SCAN_FLAGS = {
    "mamba_conv_bias": "blk.*.ssm_conv1d.bias",
    "mamba_proj_bias": "blk.*.ssm_in.bias",
    **BIASES,
}
_LFM_KEYS, _LFM_NAMES = {"shortconv.l_cache": "conv_L_cache"}, {"rms_norm_eps": "norm_eps"}
_LFM_FLAGS = {"conv_bias": "blk.*.shortconv.conv.bias"}


def _mamba(fields: Fields, tensors: Tensors, found: Found) -> Found:
    if not fields.flag("ssm.dt_b_c_rms", False):
        return {}
    return {"architectures": ["FalconMambaForCausalLM"]}


def _mamba_2(fields: Fields, tensors: Tensors, found: Found) -> Found:
    return {
        "head_dim": _head_size(fields),
        "expand": fields.integer("ssm.inner_size") / found["hidden_size"],
    }


def _head_size(fields: Fields) -> int:
    inner, heads = fields.integer("ssm.inner_size"), fields.integer("ssm.time_step_rank")
    if inner % heads:
        raise CheckpointError(
            f"{fields.where}: ssm.inner_size is {inner}, and must be a multiple of "
            f"ssm.time_step_rank, which is {heads}; convert the model again."
        )
    return inner // heads


def _jamba(fields: Fields, tensors: Tensors, found: Found) -> Found:
    layers = found["num_hidden_layers"]
    attend = _regular(layers_with(tensors, "attn_q.weight", layers), "attention", fields)
    sparse = layers_with(tensors, "ffn_gate_inp.weight", layers)
    experts = _regular(sparse, "experts", fields) if any(sparse) else (1, 0)
    return {
        "attn_layer_period": attend[0], "attn_layer_offset": attend[1],
        "expert_layer_period": experts[0], "expert_layer_offset": experts[1],
        "num_experts": fields.integer("expert_count") if any(sparse) else 1,
        "mamba_expand": fields.integer("ssm.inner_size") / found["hidden_size"],
    }  # fmt: skip


def _regular(marked: Sequence[bool], what: str, fields: Fields) -> tuple[int, int]:
    """Every so many layers, and the first of them; raises UnsupportedError for other patterns."""
    where = [layer for layer, one in enumerate(marked) if one]
    first = where[0] if where else 0
    period = where[1] - first if len(where) > 1 else len(marked)
    if [first < period and layer % period == first for layer in range(len(marked))] != [*marked]:
        raise UnsupportedError(
            f"{fields.where} has {what} in layers {where}, which are not evenly apart, so the "
            "model is not supported; use a Jamba model whose layers are."
        )
    return period, first


def _granite(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Attention rotates unless a key says that it does not."""
    attend = layers_with(tensors, "attn_q.weight", found["num_hidden_layers"])
    rotates = fields.flag("rope.scaling.finetuned", True)
    shared = found["shared_intermediate_size"]
    if not found["num_local_experts"]:  # Bamba's files have one size
        shared = shared or fields.integer("feed_forward_length")
    return granite_scores(fields, tensors, found) | {
        "layer_types": ["attention" if one else "mamba" for one in attend],
        "position_embedding_type": "rope" if rotates else "nope",
        "shared_intermediate_size": shared,
    }


def _nemotron(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """A letter a layer, by what it has."""
    layers = found["num_hidden_layers"]
    kinds = {"attn_q": "*", "ssm_in": "M", "ffn_gate_inp": "E", "ffn_up": "-"}
    letters = ["?"] * layers
    for name, letter in kinds.items():
        has = layers_with(tensors, f"{name}.weight", layers)
        letters = [letter if one else known for one, known in zip(has, letters, strict=True)]
    size = found.get("intermediate_size", 1)
    if "-" in letters:  # of whose size mixtures have no key
        size = tensors[f"blk.{letters.index('-')}.ffn_up.weight"].shape[0]
    return {
        "hybrid_override_pattern": "".join(letters),
        "mamba_head_dim": _head_size(fields),
        "intermediate_size": size,
    }


def _lfm_2(fields: Fields, tensors: Tensors, found: Found) -> Found:
    attend = layers_with(tensors, "attn_q.weight", found["num_hidden_layers"])
    return {"layer_types": ["full_attention" if one else "conv" for one in attend]}


_NEMOTRON_KEYS = {
    "ssm.conv_kernel": "conv_kernel",
    "ssm.state_size": "ssm_state_size",
    "ssm.group_count": "n_groups",
    "ssm.time_step_rank": "mamba_num_heads",
}
_NEMOTRON_FLAGS = {
    "use_conv_bias": "blk.*.ssm_conv1d.bias",
    "use_bias": "blk.*.ssm_in.bias",
    "mlp_bias": "blk.*.ffn_up.bias",
}
_NEMOTRON_CONVERTED = Converted(_NEMOTRON, paired=True, undone=_DUAL)
_NEMOTRON_SAID = {"mlp_hidden_act": "relu2"}
STATES: Mapping[str, Stated] = {
    "mamba": Stated(
        "MambaForCausalLM", Converted(_MAMBA, undone=_SELECTIVE),
        {
            **_PURE_KEYS,
            "ssm.inner_size": "intermediate_size",
            "ssm.time_step_rank": "time_step_rank",
        },
        _PURE_FLAGS, renamed=_PURE_NAMES, more=_mamba, attends=False,
    ),
    "mamba2": Stated(
        "Mamba2ForCausalLM", Converted(_MAMBA_2, undone=_DUAL),
        {**_PURE_KEYS, "ssm.group_count": "n_groups", "ssm.time_step_rank": "num_heads"},
        _PURE_FLAGS, renamed=_PURE_NAMES, more=_mamba_2, attends=False,
    ),
    "jamba": Stated(
        "JambaForCausalLM", Converted(_JAMBA, undone=_SELECTIVE),
        {
            "expert_used_count": "num_experts_per_tok",
            "ssm.conv_kernel": "mamba_d_conv",
            "ssm.state_size": "mamba_d_state",
            "ssm.time_step_rank": "mamba_dt_rank",
        },
        {
            "mamba_conv_bias": "blk.*.ssm_conv1d.bias",
            "mamba_proj_bias": "blk.*.ssm_in.bias",
        },
        more=_jamba,
    ),
    # whose converter multiplies the tensors by all of its factors
    "falcon-h1": Stated(
        "FalconH1ForCausalLM", Converted(_FALCON_H1, undone=_DUAL), _SCAN_KEYS,
        {
            **_SCAN_FLAGS,
            "mamba_rms_norm": "blk.*.ssm_norm.weight",
            "projectors_bias": "blk.*.ssm_out.bias",
        },
        {"mamba_norm_before_gate": False},
    ),
    "granitehybrid": Stated(
        "GraniteMoeHybridForCausalLM",
        Converted(
            _GRANITE, paired=True, undone=_DUAL,
            joined=(*GRANITE_JOINS, gate_up(GRANITE_SHARED, "")),
        ),
        {**GRANITE_KEYS, **_SCAN_KEYS}, _SCAN_FLAGS, more=_granite, reads=("attention.scale",),
    ),
    "nemotron_h": Stated(
        "NemotronHForCausalLM", _NEMOTRON_CONVERTED, _NEMOTRON_KEYS, _NEMOTRON_FLAGS,
        _NEMOTRON_SAID, {"rms_norm_eps": "layer_norm_epsilon"}, _nemotron,
    ),
    "nemotron_h_moe": Stated(
        "NemotronHForCausalLM", _NEMOTRON_CONVERTED,
        {
            **_NEMOTRON_KEYS,
            **{key: name for key, name in ROUTED_KEYS.items() if "leading" not in key},
            "expert_shared_feed_forward_length": "moe_shared_expert_intermediate_size",
            "expert_weights_norm": "norm_topk_prob",
            "expert_group_count": "n_group",
            "expert_group_used_count": "topk_group",
            "moe_latent_size": "moe_latent_size",
        },
        _NEMOTRON_FLAGS, _NEMOTRON_SAID, {"rms_norm_eps": "layer_norm_epsilon"}, _nemotron,
        gating=SIGMOID,
    ),
    "lfm2": Stated(
        "Lfm2ForCausalLM", _SHORT, _LFM_KEYS, _LFM_FLAGS, {"block_auto_adjust_ff_dim": False},
        _LFM_NAMES, _lfm_2,
    ),
    "lfm2moe": Stated(
        "Lfm2MoeForCausalLM", _SHORT,
        {
            **_LFM_KEYS,
            "expert_count": "num_experts",
            "expert_used_count": "num_experts_per_tok",
            "expert_feed_forward_length": "moe_intermediate_size",
            "leading_dense_block_count": "num_dense_layers",
            "expert_weights_scale": "routed_scaling_factor",
        },
        {**_LFM_FLAGS, "use_expert_bias": "blk.*.exp_probs_b.bias"}, {"norm_topk_prob": True},
        _LFM_NAMES, _lfm_2, gating=SIGMOID,
    ),
    **DELTAS,
}  # fmt: skip
