"""Families of dense models whose GGUF files differ from Llama's in names and a few keys.

Owns a row for each: what the converter did to its tensors, which keys it has besides, and what
llama.cpp takes for granted where no key says it. Refuses to know the file, and JAX.
Source: `MODEL_TENSORS` of the package gguf; llama.cpp's `conversion/` and `src/models/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.config.fields import Fields
from models.errors import UnsupportedError
from models.gguf.by_layer import pattern
from models.gguf.tensors.names import LAYER, LLAMA, QWEN_3_MOE, Converted
from models.quantised.tensors import Readable

Tensors = Mapping[str, Readable]

_BEHIND = {  # norms behind attention and MLP, and none before them
    **{k: v for k, v in LLAMA.items() if k not in ("blk.*.attn_norm", "blk.*.ffn_norm")},
    "blk.*.post_attention_norm": f"{LAYER}.post_attention_layernorm",
    "blk.*.post_ffw_norm": f"{LAYER}.post_feedforward_layernorm",
}
_GLM_4 = {
    **LLAMA,
    "blk.*.ffn_up": f"{LAYER}.mlp.gate_up_proj",
    "blk.*.post_attention_norm": f"{LAYER}.post_self_attn_layernorm",
    "blk.*.post_ffw_norm": f"{LAYER}.post_mlp_layernorm",
}
_PHI = {
    **LLAMA,
    "output_norm": "model.final_layernorm",
    "blk.*.attn_output": f"{LAYER}.self_attn.dense",
    "blk.*.ffn_up": f"{LAYER}.mlp.fc1",
    "blk.*.ffn_down": f"{LAYER}.mlp.fc2",
}
_QWEN_2_MOE = {
    **QWEN_3_MOE,
    "blk.*.ffn_gate_inp_shexp": f"{LAYER}.mlp.shared_expert_gate",
    **{
        f"blk.*.ffn_{x}_shexp": f"{LAYER}.mlp.shared_expert.{x}_proj"
        for x in ("gate", "up", "down")
    },
}
_SEED = {**LLAMA, "blk.*.post_attention_norm": f"{LAYER}.post_attention_layernorm"}
_STARCODER_2 = {
    **LLAMA,
    "blk.*.ffn_up": f"{LAYER}.mlp.c_fc",
    "blk.*.ffn_down": f"{LAYER}.mlp.c_proj",
}


@dataclass(frozen=True)
class Dense:
    """A family: the class of its models, and how its files say what config.json says.

    epsilon: what config.json calls that of a LayerNorm; "" is an RMSNorm, whose name is known.
    biases: the flag of config.json that is set where queries have a bias.
    numbers: keys that only some families have -> what config.json calls them.
    said: what config.json says and no key does.
    slides: layers may have windows.
    sliding: the class of its models whose layers have.
    """

    architecture: str
    converted: Converted
    epsilon: str = ""
    biases: str = "attention_bias"
    numbers: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    slides: bool = False
    sliding: str = ""


_GRANITE = {
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
}
_LOGITS = {"logit_scale": "logit_scale"}
DENSE: Mapping[str, Dense] = {
    "arcee": Dense("ArceeForCausalLM", Converted(LLAMA, paired=True)),
    "cohere2": Dense(
        "Cohere2ForCausalLM", Converted(LLAMA), "layer_norm_eps", numbers=_LOGITS, slides=True
    ),
    "command-r": Dense("CohereForCausalLM", Converted(LLAMA), "layer_norm_eps", numbers=_LOGITS),
    "ernie4_5": Dense("Ernie4_5ForCausalLM", Converted(LLAMA), biases="use_bias"),
    "exaone4": Dense("Exaone4ForCausalLM", Converted(_BEHIND), slides=True),
    "glm4": Dense("Glm4ForCausalLM", Converted(_GLM_4)),
    "granite": Dense("GraniteForCausalLM", Converted(LLAMA, paired=True), numbers=_GRANITE),
    "nemotron": Dense("NemotronForCausalLM", Converted(LLAMA, norm_offset=True), "norm_eps"),
    "olmo2": Dense("Olmo2ForCausalLM", Converted(_BEHIND), slides=True, sliding="Olmo3ForCausalLM"),
    "phi2": Dense("PhiForCausalLM", Converted(_PHI), "layer_norm_eps"),
    "qwen2moe": Dense("Qwen2MoeForCausalLM", Converted(_QWEN_2_MOE), biases="qkv_bias"),
    "seed_oss": Dense("SeedOssForCausalLM", Converted(_SEED)),
    "smollm3": Dense(
        "SmolLM3ForCausalLM", Converted(LLAMA, paired=True), said={"no_rope_layer_interval": 4}
    ),
    "stablelm": Dense(
        "StableLmForCausalLM", Converted(LLAMA), "layer_norm_eps", biases="use_qkv_bias"
    ),
    "starcoder2": Dense(
        "Starcoder2ForCausalLM",
        Converted(_STARCODER_2),
        "norm_epsilon",
        biases="use_bias",
        said={"sliding_window": 4096},
    ),
}


def norm_key(name: str) -> str:
    """llama.cpp's key of what is added in norms."""
    layer = name == "gpt2" or (name in DENSE and DENSE[name].epsilon)
    return "attention.layer_norm_epsilon" if layer else "attention.layer_norm_rms_epsilon"


def adapted(
    found: Mapping[str, Any], fields: Fields, tensors: Tensors, name: str
) -> dict[str, Any]:
    """What config.json of one of these families says, from what it says of a Llama.

    Raises UnsupportedError for norms of each head, whose tensors are of another shape here.
    """
    family, config = DENSE[name], dict(found)
    if name in ("stablelm", "command-r") and "blk.0.attn_q_norm.weight" in tensors:
        raise UnsupportedError(
            f"{fields.where} has a norm for each head, which is not read from a GGUF file of the "
            f"family {name}; use the model's safetensors."
        )
    if family.epsilon:
        config[family.epsilon] = config.pop("rms_norm_eps")
    del config["mlp_bias"], config["attention_bias"]
    config[family.biases] = "blk.0.attn_q.bias" in tensors
    for theirs, ours in family.numbers.items():
        config[ours] = fields.number(theirs)
    if name == "stablelm":
        config["use_parallel_residual"] = fields.flag("use_parallel_residual", True)
    if family.slides and config["sliding_window"]:
        config |= pattern(fields, 4)
        config |= {"architectures": [family.sliding]} if family.sliding else {}
    return {**config, **family.said}
