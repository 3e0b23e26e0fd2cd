"""Families with queries, keys and values in one tensor: Baichuan, ChatGLM, InternLM 2 and Qwen 1.

    attn_q, attn_k, attn_v    W_pack, query_key_value     behind each other
                              wqkv                        of each head of keys, with its queries

Owns a row for each, and laying the three together. Of Qwen 1 no key says how long the texts were
that it learned from, so that all of `context_length` is read as these are, as llama.cpp does.
Refuses to know the file, and JAX.
Source: `BaichuanModel`, `ChatGLMModel`, `InternLM2Model` and `QwenModel` of llama.cpp's
`conversion/`; `src/models/baichuan.cpp`.
"""

from collections.abc import Mapping, Sequence

from models.config.fields import Fields
from models.errors import UnsupportedError
from models.gguf.by_layer import heads_of
from models.gguf.families.stated import Found, Stated, Tensors
from models.gguf.tensors.joining import ByGroup, Concatenated, Join, misfit
from models.gguf.tensors.names import LAYER, LLAMA, Converted
from models.gguf.tensors.undoing import HalvedHeads
from models.quantised.tensors import Readable

_QKV = ("attn_q", "attn_k", "attn_v")
_UNPACKED = {key: name for key, name in LLAMA.items() if key.rpartition(".")[2] not in _QKV}
_INTERN = {
    "token_embd": "model.tok_embeddings",
    "output_norm": "model.norm",
    "output": "output",
    "blk.*.attn_norm": f"{LAYER}.attention_norm",
    "blk.*.attn_output": f"{LAYER}.attention.wo",
    "blk.*.ffn_norm": f"{LAYER}.ffn_norm",
    "blk.*.ffn_gate": f"{LAYER}.feed_forward.w1",
    "blk.*.ffn_down": f"{LAYER}.feed_forward.w2",
    "blk.*.ffn_up": f"{LAYER}.feed_forward.w3",
}
_BLOCK = "transformer.encoder.layers.*"
_CHATGLM = {
    "token_embd": "transformer.embedding.word_embeddings",
    "output_norm": "transformer.encoder.final_layernorm",
    "output": "transformer.output_layer",
    "blk.*.attn_norm": f"{_BLOCK}.input_layernorm",
    "blk.*.attn_qkv": f"{_BLOCK}.self_attention.query_key_value",
    "blk.*.attn_output": f"{_BLOCK}.self_attention.dense",
    "blk.*.ffn_norm": f"{_BLOCK}.post_attention_layernorm",
    "blk.*.ffn_up": f"{_BLOCK}.mlp.dense_h_to_4h",
    "blk.*.ffn_down": f"{_BLOCK}.mlp.dense_4h_to_h",
}
_QWEN = {
    "token_embd": "transformer.wte",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
    "blk.*.attn_norm": "transformer.h.*.ln_1",
    "blk.*.attn_qkv": "transformer.h.*.attn.c_attn",
    "blk.*.attn_output": "transformer.h.*.attn.c_proj",
    "blk.*.ffn_norm": "transformer.h.*.ln_2",
    "blk.*.ffn_up": "transformer.h.*.mlp.w1",
    "blk.*.ffn_gate": "transformer.h.*.mlp.w2",
    "blk.*.ffn_down": "transformer.h.*.mlp.c_proj",
}
_WITH_ALIBI = 40  # layers of Baichuan 13B, whose files do not say that it does not rotate
_CHATGLM_THETA = 10_000.0


def _packed(name: str, leaf: str = "weight", paired: bool = False, grouped: bool = False) -> Join:
    def made(called: str, tensors: Sequence[Readable], fields: Fields) -> Readable:
        return _together(called, tensors, fields, paired, grouped)

    return Join(f"{name}.{leaf}", tuple(f"blk.*.{one}.{leaf}" for one in _QKV), made)


def _together(
    name: str, tensors: Sequence[Readable], fields: Fields, paired: bool, grouped: bool
) -> Readable:
    """Queries, keys and values, each with heads that are as long as all others."""
    q, k, v = tensors
    heads, groups = heads_of(fields, "attn_q"), heads_of(fields, "attn_k")
    fits = groups > 0 and heads % groups == 0 and k.shape == v.shape
    size = k.shape[0] // groups if fits else 0
    if not size or size % 2 or q.shape != (heads * size, *k.shape[1:]):
        raise misfit(name, tensors, fields)
    if paired:
        q, k = HalvedHeads(q, heads), HalvedHeads(k, groups)
    whole = Concatenated(name, (q, k, v))
    if not grouped:
        return whole
    return ByGroup(name, whole, groups, (heads // groups * size, size, size))


def _baichuan(fields: Fields, tensors: Tensors, found: Found) -> Found:
    if found["num_hidden_layers"] != _WITH_ALIBI:
        return {}
    return {
        "model_max_length": found["max_position_embeddings"],
        "max_position_embeddings": None,
    }


def _chatglm(fields: Fields, tensors: Tensors, found: Found) -> Found:
    if fields.integer("rope.dimension_count") != found["head_dim"] // 2:
        raise UnsupportedError(
            f"{fields.where}: rope.dimension_count is {fields.raw['rope.dimension_count']!r}, and "
            "half of each head is rotated in this architecture; use the model's safetensors."
        )
    biases = ("blk.0.attn_qkv.bias", "blk.0.attn_q.bias")
    return {
        "multi_query_attention": True,
        "rope_ratio": found["rope_theta"] / _CHATGLM_THETA,
        "add_qkv_bias": any(one in tensors for one in biases),
        "add_bias_linear": "blk.0.attn_output.bias" in tensors,
    }


PACKED: Mapping[str, Stated] = {
    "baichuan": Stated(
        "BaichuanForCausalLM",
        Converted(_UNPACKED, joined=(_packed(f"{LAYER}.self_attn.W_pack", paired=True),)),
        more=_baichuan,
    ),
    "chatglm": Stated(
        "ChatGLMModel",
        Converted(
            _CHATGLM,
            joined=tuple(
                _packed(f"{_BLOCK}.self_attention.query_key_value", leaf)
                for leaf in ("weight", "bias")
            ),
        ),
        renamed={
            "num_hidden_layers": "num_layers",
            "vocab_size": "padded_vocab_size",
            "intermediate_size": "ffn_hidden_size",
            "num_key_value_heads": "multi_query_group_num",
            "head_dim": "kv_channels",
            "max_position_embeddings": "seq_length",
            "rms_norm_eps": "layernorm_epsilon",
        },
        more=_chatglm,
    ),
    "internlm2": Stated(
        "InternLM2ForCausalLM",
        Converted(
            _INTERN,
            joined=(_packed(f"{LAYER}.attention.wqkv", paired=True, grouped=True),),
        ),
    ),
    "qwen": Stated(
        "QWenLMHeadModel",
        Converted(_QWEN),
        renamed={
            "rms_norm_eps": "layer_norm_epsilon",
            "rope_theta": "rotary_emb_base",
            "partial_rotary_factor": "rotary_pct",
            "max_position_embeddings": "seq_length",
            "head_dim": "kv_channels",
        },
    ),
}
