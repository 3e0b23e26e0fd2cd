"""Kimi Linear, with layers of the delta rule that forgets by key entry, and latent attention.

Owns its row. Refuses to know the file, and JAX.
Source: `KimiLinearModel` of llama.cpp's `conversion/kimi_linear.py`.
"""

import math
from collections.abc import Mapping

from models.config.fields import MAX_HEADS, Fields
from models.errors import CheckpointError
from models.gguf.families.mixtures import LATENT, LATENT_CONVERTED, MIXTRAL_EXPERTS, latent
from models.gguf.families.stated import SIGMOID, Found, Stated, Tensors, layers_with
from models.gguf.tensors.names import LAYER, Converted, plain
from models.gguf.tensors.undoing import LogRates, Reshaped, convolution
from models.quantised.tensors import Readable

_MIXER, _MOE = f"{LAYER}.self_attn", f"{LAYER}.block_sparse_moe"
_NAMES = {
    **LATENT_CONVERTED.names,
    **MIXTRAL_EXPERTS,
    "blk.*.exp_probs_b.bias": f"{_MOE}.gate.e_score_correction_bias",
    **{f"blk.*.ffn_{x}_shexp": f"{_MOE}.shared_experts.{x}_proj" for x in ("gate", "up", "down")},
    **{f"blk.*.ssm_conv1d_{x}": f"{_MIXER}.{x}_conv1d" for x in "qkv"},
    **{f"blk.*.ssm_{x}": f"{_MIXER}.{x}_proj" for x in ("f_a", "f_b", "g_a", "g_b")},
    "blk.*.ssm_beta": f"{_MIXER}.b_proj",
    "blk.*.ssm_dt.bias": f"{_MIXER}.dt_bias",
    "blk.*.ssm_a": f"{_MIXER}.A_log",
    "blk.*.ssm_norm": f"{_MIXER}.o_norm",
}
_OURS = {
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_token",
    "expert_shared_count": "num_shared_experts",
    "expert_group_count": "num_expert_group",
}


def _rates(tensor: Readable) -> Readable:
    """As [1, 1, heads, 1]."""
    return LogRates(Reshaped(tensor, (1, 1, math.prod(tensor.shape), 1)))


def _kimi(fields: Fields, tensors: Tensors, found: Found) -> Found:
    layers = found["num_hidden_layers"]
    attend = layers_with(tensors, "attn_kv_a_mqa.weight", layers)
    rates = next((one for name, one in tensors.items() if name.endswith(".ssm_a")), None)
    if rates is None:
        raise CheckpointError(f"{fields.where} has no tensor ssm_a; convert the model again.")
    said = latent(fields, tensors, found)
    said.pop("architectures", None)
    return said | {
        "layer_types": ["full_attention" if one else "linear_attention" for one in attend],
        "linear_attn_config": {
            "num_heads": math.prod(rates.shape),
            "head_dim": fields.integer("kda.head_dim", high=MAX_HEADS),
            "short_conv_kernel_size": fields.integer("ssm.conv_kernel"),
        },
    }


KEYED: Mapping[str, Stated] = {
    "kimi-linear": Stated(
        "KimiLinearForCausalLM",
        Converted(
            _NAMES,
            undone={
                "blk.*.ssm_a": plain(_rates),
                **{f"blk.*.ssm_conv1d_{x}.weight": plain(convolution) for x in "qkv"},
            },
            joined=LATENT_CONVERTED.joined,
            behind=True,
        ),
        {key: _OURS.get(key, ours) for key, ours in LATENT.items() if "weights_norm" not in key},
        said={"moe_renormalize": True},
        renamed={"max_position_embeddings": "model_max_length"},
        more=_kimi,
        gating=SIGMOID,
    ),
}
