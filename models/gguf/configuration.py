"""From a GGUF file's metadata to what config.json and generation_config.json would say.

Owns llama.cpp's keys, and what it takes for granted where no key says it. Refuses to know what the
configuration means (`architectures/`), and JAX.
Source: `Keys` of the package gguf; llama.cpp's `convert_hf_to_gguf.py` and `llama-model.cpp`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.errors import CheckpointError, UnsupportedError
from models.gguf.by_layer import pattern
from models.gguf.families.dense import DENSE, adapted, norm_key
from models.gguf.families.encoders import ENCODERS, encoder_config, pooling_type
from models.gguf.families.fused import GPT_2_KEYS
from models.gguf.families.registry import FAMILIES, STATED
from models.gguf.families.stated import SOFTMAX, described
from models.gguf.rotation import MAX_LIST, rotation
from models.quantised.tensors import Readable

ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3moe": "Qwen3MoeForCausalLM",
    "gpt-oss": "GptOssForCausalLM",
    "gemma": "GemmaForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    **{name: one.architecture for name, one in DENSE.items()},
    **{name: one.architecture for name, one in STATED.items()},
}
SLIDING = ("gemma2", "gemma3", "phi3", "gpt-oss", *(n for n, one in DENSE.items() if one.slides))
# layers whose models divide scores by the width of all heads over their number, not by a head's
WIDE_SCALES: Mapping[str, int] = {"gemma2": 46, "gemma3": 62}
SOFTCAPS = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
REFUSED = (
    "attention.clamp_kqv", "attention.max_alibi_bias", "attention.scale",
    "attention.shared_kv_layers", "attention.temperature_scale", "embedding_scale", "logit_scale",
    "nextn_predict_layers", "residual_scale", "rope.dimension_sections",
    "rope.scaling.yarn_log_multiplier", "swin_norm",
)  # fmt: skip
ENDS = (  # what llama.cpp ends a text at, too, where they are control tokens
    "<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>",
    "<|end_of_text|>", "<EOT>", "<end_of_utterance>", "<|return|>", "<|call|>", "<turn|>",
)  # fmt: skip
HARMONY = {"<|return|>", "<|call|>"}  # where there are both, <|end|> ends a message, not the text
MIXTURES: Mapping[str, str] = {
    "llama": "num_local_experts",
    "qwen2moe": "num_experts",
    "qwen3moe": "num_experts",
    "gpt-oss": "num_local_experts",
}
SOFTMAX_OF_CHOSEN = 3.0  # as SOFTMAX, of what makes weights of scores
BIASED = ("llama", "qwen3", "qwen3moe", "gpt-oss")  # or not, as their tensors are
MIXTRAL = "MixtralForCausalLM"  # a "llama" with experts
SHARED_SIZE = "expert_shared_feed_forward_length"
UNKNOWN_ROUTING = (
    "expert_group_count", "expert_group_used_count", "expert_shared_count",
    SHARED_SIZE, "leading_dense_block_count", "moe_every_n_layers",
)  # fmt: skip
GEMMA_4 = "<turn|>", "<|tool_response>"  # where there is the first, the second is an end, too
SAMPLING = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
            "repetition_penalty": "penalty_repeat"}  # fmt: skip
CONTROL = 3  # of the types of tokens
UNPREFIXED = "xielu."  # keys of architectures that do not begin with the architecture's name

Metadata = Mapping[str, Any]
Tensors = Mapping[str, Readable]


def family(metadata: Metadata, where: str) -> str:
    """llama.cpp's name of the architecture; raises UnsupportedError for one that is not read."""
    name = Fields(metadata, where).text("general.architecture")
    if name not in FAMILIES and name not in ENCODERS:
        raise UnsupportedError(
            f"{where} holds a model of the architecture {name[:60]!r}; those read from GGUF files "
            f"are {', '.join((*FAMILIES, *ENCODERS))}, so use the model's safetensors."
        )
    return name


def config(metadata: Metadata, tensors: Tensors, where: str) -> dict[str, Any]:
    """What config.json would say.

    Raises:
        CheckpointError: a key is missing or absurd.
        UnsupportedError: the architecture, or something that it asks for, is not supported.
    """
    name = family(metadata, where)
    fields, ids = section(metadata, name, where), Fields(metadata, where)
    if "token_embd.weight" not in tensors:  # which has the size of the vocabulary
        raise CheckpointError(f"{where} lacks tensor 'token_embd.weight'; download it again.")
    encodes = name in ENCODERS
    found = (encoder_config if encodes else _decoder)(name, fields, tensors)
    return {
        "model_type": name,
        "bos_token_id": list(ids.token_ids("tokenizer.ggml.bos_token_id")),
        "eos_token_id": eos_token_ids(metadata, where),
        **found,
        **pooling_type(fields, ranks=encodes),
    }


def _decoder(name: str, fields: Fields, tensors: Tensors) -> dict[str, Any]:
    _refuse(fields, name)
    named = {"architectures": [ARCHITECTURES[name]]}
    if name in STATED:
        return named | described(STATED[name], fields, tensors)
    found = _sizes(fields, tensors, name) | _extras(fields, name)
    if name == "gpt2":
        found = {GPT_2_KEYS.get(key, key): value for key, value in found.items()}
    else:
        found |= rotation(fields, tensors, found["head_dim"]) | _experts(fields, tensors, name)
    if name == "gpt-oss" and found["rope_scaling"] is not None:
        found["rope_scaling"]["truncate"] = False  # which no key says
    if name in DENSE:
        found = adapted(found, fields, tensors, name)
    if name == "llama" and "num_local_experts" in found:
        found["architectures"] = [MIXTRAL]
    return named | found


def section(metadata: Metadata, name: str, where: str) -> Fields:
    """The architecture's keys, without its name in front; raises CheckpointError."""
    found: dict[str, Any] = {}
    for key, value in metadata.items():
        if not key.startswith((f"{name}.", UNPREFIXED)):
            continue
        if isinstance(value, np.ndarray | list) and len(value) > MAX_LIST:
            raise CheckpointError(f"{where}: {key[:80]} has {len(value)} values; convert it again.")
        found[key.removeprefix(f"{name}.")] = (
            value.tolist() if isinstance(value, np.ndarray) else value
        )
    return Fields(found, where)


def generation_config(metadata: Metadata, where: str) -> dict[str, Any]:
    """What generation_config.json would say."""
    found: dict[str, Any] = {
        ours: metadata[f"general.sampling.{theirs}"]
        for ours, theirs in SAMPLING.items()
        if f"general.sampling.{theirs}" in metadata
    }
    return found | {"eos_token_id": eos_token_ids(metadata, where)}


def eos_token_ids(metadata: Metadata, where: str) -> list[int]:
    """Ids that end a text: those that the keys name, and those whose names say so."""
    fields = Fields(metadata, where)
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    ids = {one for key in keys for one in fields.token_ids(f"tokenizer.ggml.{key}")}
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if isinstance(tokens, list) and isinstance(types, np.ndarray):
        control = np.flatnonzero(types[: len(tokens)] == CONTROL)
        ends = {tokens[one]: int(one) for one in control if tokens[one] in ENDS}
        if ends.keys() >= HARMONY:
            ends.pop("<|end|>", None)
        if GEMMA_4[0] in ends and GEMMA_4[1] in tokens:  # which is shown, so no control token
            ends[GEMMA_4[1]] = tokens.index(GEMMA_4[1])
        ids |= set(ends.values())
    return sorted(ids)


def _refuse(fields: Fields, name: str) -> None:
    known = DENSE[name].numbers if name in DENSE else STATED[name].known if name in STATED else ()
    fields.refuse(*(key for key in REFUSED if key not in known))
    fields.required("attention.causal")
    if name in STATED:
        return
    if name not in MIXTURES:
        fields.refuse("expert_count")
    if name not in SLIDING:
        fields.refuse("attention.sliding_window")
    if name != "gemma2":
        fields.refuse("attn_logit_softcapping")
    if name not in ("gemma2", "gemma3"):
        fields.refuse("final_logit_softcapping")


def _sizes(fields: Fields, tensors: Tensors, name: str) -> dict[str, Any]:
    count = fields.integer("attention.head_count", high=MAX_HEADS)
    width = fields.integer("embedding_length")
    dim = fields.integer("attention.key_length", max(1, width // count), high=MAX_HEADS)
    if fields.integer("attention.value_length", dim, high=MAX_HEADS) != dim:
        raise UnsupportedError(f"{fields.where} has values of another size than its keys.")
    return {
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "hidden_size": width,
        "intermediate_size": fields.integer("feed_forward_length"),
        "num_hidden_layers": fields.integer("block_count", high=MAX_LAYERS),
        "num_attention_heads": count,
        "num_key_value_heads": fields.integer("attention.head_count_kv", count, high=MAX_HEADS),
        "head_dim": dim,
        "max_position_embeddings": fields.integer("context_length", high=MAX_TOKENS),
        "rms_norm_eps": fields.number(norm_key(name)),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": name in BIASED and "blk.0.attn_q.bias" in tensors,
        "mlp_bias": name == "llama" and "blk.0.ffn_up.bias" in tensors,
    }


def _extras(fields: Fields, name: str) -> dict[str, Any]:
    """What single families have besides."""
    found: dict[str, Any] = {}
    if name in SLIDING:
        window = fields.integer("attention.sliding_window", 0, low=0, high=MAX_TOKENS)
        found["sliding_window"] = window or None
    if name in WIDE_SCALES:
        layers = fields.integer("block_count", high=MAX_LAYERS)
        width, count = fields.integer("embedding_length"), fields.integer("attention.head_count")
        wide = layers == WIDE_SCALES[name]
        found["query_pre_attn_scalar"] = width / count if wide else _head_dim(fields)
    if name in ("gemma2", "gemma3"):
        found |= {ours: fields.optional_number(theirs) for ours, theirs in SOFTCAPS.items()}
    if name == "gemma3":
        found["rope_local_base_freq"] = fields.number("rope.freq_base_swa", 10_000.0)
        found |= pattern(fields, 6)
    return found


def _experts(fields: Fields, tensors: Tensors, name: str) -> dict[str, Any]:
    """Of mixtures: how many experts there are, how many a token takes, and their size."""
    count = fields.integer("expert_count", 0, low=0)
    if not count:
        return {}
    shared = {SHARED_SIZE} if name == "qwen2moe" else set()
    fields.refuse(*(key for key in UNKNOWN_ROUTING if key not in shared))
    gating = SOFTMAX_OF_CHOSEN if name == "gpt-oss" else SOFTMAX
    fields.constant("expert_gating_func", gating)
    fields.constant("expert_weights_scale", 1.0)
    found: dict[str, Any] = {
        MIXTURES[name]: count,
        "num_experts_per_tok": fields.integer("expert_used_count"),
    }
    if name == "qwen2moe":
        found["shared_expert_intermediate_size"] = fields.integer(SHARED_SIZE)
    if name in ("qwen2moe", "qwen3moe"):
        found |= {
            "moe_intermediate_size": fields.integer("expert_feed_forward_length"),
            "norm_topk_prob": name == "qwen3moe",  # which no key says
            "mlp_only_layers": [
                layer
                for layer in range(fields.integer("block_count", high=MAX_LAYERS))
                if f"blk.{layer}.ffn_gate_inp.weight" not in tensors
            ],
        }
    return found


def _head_dim(fields: Fields) -> int:
    return fields.integer("attention.key_length", high=MAX_HEADS)
