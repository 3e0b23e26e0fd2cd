"""Cases whose files llama.cpp's own converter wrote once, and what they say: `recorded.json`.

    {"mamba2": {"keys": {"mamba2.block_count": 3, ...},
                "tensors": {"blk.0.ssm_a": [[6, 1], "5d0a.."], ...}}}     shape, digest of the bytes

Owns the table of cases, and reading that file; `record.py` writes it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity.case import Case
from tests.parity.cases import CASES
from tests.parity.goldens import Golden, read
from tests.parity.weights import tensor

PATH = Path(__file__).parent / "recorded.json"


@dataclass(frozen=True)
class Converted:
    """How a case of `tests/parity` is changed before it is converted.

    changes: of its config.json; None leaves a key out.
    stated: what the converter must be told besides, and config.json's reader takes for granted.
    shapes: ends of names -> the tensors' shapes, where these differ.
    also: names of further tensors, that have such ends.
    without: the ends of names of tensors that there are none of.
    exact: the file means the same ModelConfig; else it says of it what files can.
    alone: without transformers' defaults, which make a mixture of every Nemotron-H.
    text: the text model of one that takes images, under names of its own.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    stated: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    exact: bool = True
    alone: bool = False
    text: bool = False


_PLAIN = Converted()
_SCAN = {"mamba_d_conv": 4, "mamba_d_head": 20}
_STATES = {"mamba_d_head": 14, "conv_kernel": 4}
_FALCON_H1 = {"head_dim": 10, "mamba_d_conv": 4, "rope_theta": 10000.0}
_FACTORS = {
    "key_multiplier": 1.0, "attention_in_multiplier": 1.0, "attention_out_multiplier": 1.0,
    "ssm_in_multiplier": 1.0, "ssm_out_multiplier": 1.0, "ssm_multipliers": [1.0] * 5,
    "mlp_multipliers": [1.0, 1.0], "embedding_multiplier": 1.0, "lm_head_multiplier": 1.0,
}  # fmt: skip
_OWN_KEYS = {"num_kv_shared_layers": 0}
_NO_EXPERTS = {"moe_intermediate_size": None}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2}
_FAR = {"max_position_embeddings": 2**20}  # which files of these families say always
_SHORT = {"max_position_embeddings": 2048}  # the same
_TANH = {"activation_function": "gelu_pytorch_tanh"}  # by another name
_UNROTATED = (
    {"layer_rope_theta": [0, 10000.0, 10000.0, 10000.0, 0]},
    {"no_rope_layers": [0, 1, 1, 1, 0]},  # as its converter calls them
)
STATED_CASES: Mapping[str, Converted] = {
    "afmoe": Converted({"global_attn_every_n_layers": 4}, {"route_norm": True}),
    "apertus": Converted(
        {"rope_scaling": {"rope_type": "default"}}, without=("act_fn.beta", "act_fn.eps")
    ),
    "baichuan": Converted({"architectures": ["BaichuanForCausalLM"]}),
    "bailing_moe_v2": Converted(stated={"norm_topk_prob": True}),
    "chatglm": Converted(
        {"num_attention_heads": 2, "multi_query_group_num": 1, "kv_channels": 20, **_ENDS},
        shapes={
            "query_key_value.weight": (80, 40),
            "query_key_value.bias": (80,),
            "self_attention.dense.weight": (40, 40),
        },
    ),
    "cohere2_moe": _PLAIN,
    "decilm": _PLAIN,
    "gemma4_12b_text": Converted({"architectures": ["Gemma4ForCausalLM"]}, _OWN_KEYS | _NO_EXPERTS),
    "gemma4_26b": Converted(stated=_OWN_KEYS),
    "gemma4_e2b": Converted(text=True),
    "hy_v3": _PLAIN,
    "internlm2": Converted({"bias": False}, without=("wqkv.bias", "wo.bias")),
    "mellum": _PLAIN,
    "minicpm": _PLAIN,
    "minicpm3": Converted({"scale_emb": 12.0, "scale_depth": 1.4, "dim_model_base": 256}),
    "qwen": Converted(_ENDS, {"max_position_embeddings": 128}),
    "qwen2_5_vl": Converted(
        {"architectures": ["Qwen2ForCausalLM"], "rope_scaling": None, "vision_config": None},
        {
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        },
        text=True,
    ),
    "qwen3_vl": Converted(
        {"architectures": ["Qwen3ForCausalLM"], "rope_scaling": None},
        {
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "rope_scaling": {"rope_type": "default", "mrope_section": [3, 3, 2]},
            "vision_config": {"deepstack_visual_indexes": [0]},
        },
        text=True,
    ),
    "deepseek": _PLAIN,
    "deepseek_v2": _PLAIN,
    "deepseek_v2_lite": _PLAIN,
    "deepseek_v3": _PLAIN,
    "deepseek_v3_yarn": _PLAIN,
    "deepseek_v32": _PLAIN,
    "glm_moe_dsa": _PLAIN,
    "glm4_moe": _PLAIN,
    "glm4_moe_lite": Converted(
        {
            "architectures": ["DeepseekV3ForCausalLM"],
            "norm_topk_prob": True,
            "n_group": 1,
            "topk_group": 1,
            "routed_scaling_factor": 1.8,
            "first_k_dense_replace": 0,
        },
        {"scoring_func": "sigmoid"},
    ),
    "dots1": Converted(
        {"sliding_window": None, "max_window_layers": None}, {"routed_scaling_factor": 1.0}
    ),
    "ernie4_5_moe": _PLAIN,
    "hunyuan_dense": Converted({"rope_scaling": None}),
    "hunyuan_moe": Converted(
        {"rope_scaling": None}, {"moe_intermediate_size": [24] * 3, "num_shared_expert": [1] * 3}
    ),
    "minimax_m2": _PLAIN,
    "olmoe": _PLAIN,
    "phimoe": Converted(exact=False),
    "granite_moe": _PLAIN,
    "granite_moe_shared": Converted({"architectures": ["GraniteMoeForCausalLM"]}),
    "dbrx": Converted({"bos_token_id": 1, "eos_token_id": 2}),
    "mamba": _PLAIN,
    "mamba2": _PLAIN,
    "falcon_mamba": Converted({"mixer_rms_eps": None}),
    "jamba": _PLAIN,
    "falcon_h1": Converted(stated=_FALCON_H1, exact=False),
    "falcon_h1_norm": Converted({"mamba_norm_before_gate": False}, _FALCON_H1 | _FACTORS),
    "granite_hybrid": Converted(_FAR, _SCAN),
    "granite_hybrid_dense": Converted(
        _FAR | {"position_embedding_type": None, "attention_multiplier": 0.5},
        _SCAN | {"mamba_expand": 2},
    ),
    "nemotron_h": Converted(_FAR | {"num_hidden_layers": 5}, _STATES, alone=True),
    "nemotron_3": Converted(_FAR | {"intermediate_size": 24}, _STATES),
    "nemotron_3_latent": Converted(_FAR | {"num_hidden_layers": 5}, _STATES),
    "lfm2": Converted(
        {"conv_bias": False},
        {"block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0},
        without=("conv.bias", "conv.in_proj.bias", "conv.out_proj.bias"),
    ),
    "lfm2_moe": _PLAIN,
    "qwen3_next": _PLAIN,
    "qwen3_5": _PLAIN,
    "qwen3_5_moe": _PLAIN,
    "kimi_linear": Converted(
        {"num_expert_group": 1, "topk_group": 1},
        shapes={
            "mlp.down_proj.weight": (40, 56),
            "mlp.gate_proj.weight": (56, 40),
            "mlp.up_proj.weight": (56, 40),
        },
        also=tuple(f"model.layers.0.mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
        without=tuple(f"0.block_sparse_moe.{x}_proj.weight" for x in ("gate", "up", "down")),
        alone=True,
    ),
    "olmo": _PLAIN,
    "olmo3": _PLAIN,
    "exaone": Converted(alone=True),
    "exaone_moe": Converted(stated={"norm_topk_prob": True, "routed_scaling_factor": 2.5}),
    "llama4": Converted({"attention_chunk_size": 8192, "floor_scale": 8192, "attn_scale": 0.1}),
    "ministral3": _PLAIN,
    "gemma3n": Converted(
        {
            "altup_num_inputs": 4,
            "vocab_size_per_layer_input": 67,
            "activation_sparsity_pattern": [0.8, 0.8, 0.0, 0.5, 0.0],
        },
        {"altup_active_idx": 0, "final_logit_softcapping": 30.0, "rope_local_base_freq": 10000.0},
        shapes={
            "correction_coefs.weight": (4, 4),
            "prediction_coefs.weight": (16, 4),
            "modality_router.weight": (4, 40),
            "per_layer.weight": (67, 60),
            "projections.2.weight": (40, 40),
        },
        also=("model.altup_projections.2.weight", "model.altup_unembed_projections.2.weight"),
    ),
    "falcon_7b": Converted(_SHORT, {"num_kv_heads": 1}),
    "falcon_40b": Converted(_SHORT),
    "gpt_neox": Converted(stated={"rotary_pct": 0.25, "layer_norm_eps": 1e-5}, alone=True),
    "gpt_neox_sequential": Converted(stated={"layer_norm_eps": 1e-5}, alone=True),
    "bloom": Converted(stated={"seq_length": 2048}),
    "mpt": _PLAIN,
    "mpt_clipped": Converted(
        {
            "architectures": ["MPTForCausalLM"],
            "attn_config": {"alibi": True, "alibi_bias_max": 8.0, "clip_qkv": 1.5},
        }
    ),
    "gpt_bigcode": Converted(_TANH),
    "gpt_bigcode_heads": Converted(_TANH),
    "jais2": _PLAIN,
    "granite_swa": Converted(*_UNROTATED),
    "granite_moe_swa": Converted(*_UNROTATED),
}


def changed(name: str) -> tuple[Case, Golden]:
    """The case, and names and shapes of its tensors."""
    row, case, golden = STATED_CASES[name], CASES[name], read(name)
    left_out = {key for key, one in row.changes.items() if one is None}
    first = case.config.get("text_config", case.config) if row.text else case.config
    config = {k: v for k, v in {**first, **row.changes}.items() if k not in left_out}
    shapes = {name: shape for name, shape in golden.tensors if not name.endswith(row.without)}
    if row.text:
        shapes = {
            name.replace("language_model.", ""): shape
            for name, shape in shapes.items()
            if "visual" not in name
        }
    for one in (*shapes, *row.also):
        shapes[one] = next(
            (s for end, s in row.shapes.items() if one.endswith(end)), shapes.get(one)
        )
    kept = [(one, shape) for one, shape in shapes.items() if shape]
    return replace(case, config=config), replace(golden, tensors=kept)


def drawn(case: Case, golden: Golden) -> dict[str, np.ndarray]:
    """The checkpoint's tensors."""
    return {one: tensor(case.seed, one, shape, case.spread) for one, shape in golden.tensors}


def digest(array: np.ndarray) -> str:
    """Of the numbers' bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]


def recorded() -> dict[str, Any]:
    """What the converter wrote."""
    found: dict[str, Any] = json.loads(PATH.read_text())
    return found
