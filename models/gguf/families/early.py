"""OLMo 1, EXAONE 3 and Jais 2: Llama with other norms, and Llama under other names.

Owns a row for each. Refuses to know the file, and JAX.
Source: `OlmoModel`, `ExaoneModel` and `Jais2Model` of llama.cpp's `conversion/`.
"""

from collections.abc import Mapping

from models.config.fields import Fields
from models.gguf.families.stated import BIASES, Found, Stated, Tensors
from models.gguf.tensors.names import LLAMA, Converted

_BLOCK = "transformer.h.*"
_EXAONE = {
    "token_embd": "transformer.wte",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.*.attn_norm": f"{_BLOCK}.ln_1",
    **{f"blk.*.attn_{x}": f"{_BLOCK}.attn.attention.{x}_proj" for x in "qkv"},
    "blk.*.attn_output": f"{_BLOCK}.attn.attention.out_proj",
    "blk.*.ffn_norm": f"{_BLOCK}.ln_2",
    "blk.*.ffn_gate": f"{_BLOCK}.mlp.c_fc_0",
    "blk.*.ffn_up": f"{_BLOCK}.mlp.c_fc_1",
    "blk.*.ffn_down": f"{_BLOCK}.mlp.c_proj",
}
_CLIP, _LAYER_NORM = "attention.clamp_kqv", "attention.layer_norm_epsilon"


def _olmo(fields: Fields, tensors: Tensors, found: Found) -> Found:
    return {"clip_qkv": fields.optional_number(_CLIP)}


EARLY: Mapping[str, Stated] = {
    "olmo": Stated(
        "OlmoForCausalLM", Converted(LLAMA, paired=True), more=_olmo, reads=(_CLIP,),
        epsilon=_LAYER_NORM,
    ),
    "exaone": Stated(
        "ExaoneForCausalLM", Converted(_EXAONE),
        renamed={"num_hidden_layers": "num_layers", "rms_norm_eps": "layer_norm_epsilon"},
    ),
    "jais2": Stated(
        "Jais2ForCausalLM", Converted(LLAMA), epsilon=_LAYER_NORM,
        present=BIASES,
        renamed={"rms_norm_eps": "layer_norm_eps"},
    ),
}  # fmt: skip
