"""A family whose config.json is written key by key: a row that says which key is which.

Owns what llama.cpp takes for granted where a key is absent, and the sizes that all families have.
Refuses to know families (`mixtures.py`, `states.py`), tensors' numbers, and JAX.
Source: `Keys` of the package gguf; `load_arch_hparams` in llama.cpp's `src/models/`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.config.fields import MAX_HEADS, MAX_TOKENS, Fields
from models.errors import UnsupportedError
from models.gguf.by_layer import num_layers, widest
from models.gguf.rotation import rotation
from models.gguf.tensors.names import Converted
from models.quantised.tensors import Readable

Tensors = Mapping[str, Readable]
Found = dict[str, Any]

SOFTMAX, SIGMOID = 1.0, 2.0  # llama.cpp's numbers of what makes weights of experts' scores
FLAGS: Mapping[str, bool] = {"expert_weights_norm": False, "ssm.dt_b_c_rms": False}
NUMBERS: Mapping[str, float] = {
    "expert_weights_scale": 1.0, "embedding_scale": 1.0, "residual_scale": 1.0, "logit_scale": 1.0,
}  # fmt: skip
INTEGERS: Mapping[str, int | None] = {  # where they are 0, too
    "expert_count": 0, "expert_used_count": 0, "expert_shared_count": 0,
    "expert_shared_feed_forward_length": 0, "leading_dense_block_count": 0,
    "expert_group_count": 1, "expert_group_used_count": 1, "interleave_moe_layer_step": 1,
    "attention.sliding_window": None, "attention.q_lora_rank": None, "moe_latent_size": None,
}  # fmt: skip
ROUTING = (  # of mixtures: what must be read, or say nothing
    "expert_group_count", "expert_group_used_count", "expert_weights_scale", "expert_weights_norm",
    "leading_dense_block_count", "interleave_moe_layer_step", "moe_every_n_layers",
    "moe_latent_size",
)  # fmt: skip
EPSILONS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
UNUSUAL = ("attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping")
PLAIN = (0, 1, 1.0, False, None)
ATTENTION_BIAS = {"attention_bias": "blk.*.attn_q.bias"}  # of `Stated.present`
BIASES = {**ATTENTION_BIAS, "mlp_bias": "blk.*.ffn_up.bias"}
_LAYER = re.compile(r"blk\.([0-9]{1,4})\.")


@dataclass(frozen=True)
class Stated:
    """A family: the class of its models, and how its files say what config.json says.

    keys: llama.cpp's keys -> config.json's.
    present: flags of config.json -> tensors, * any layer, that there are where they are set.
    said: what config.json says and no key does.
    renamed: what config.json calls what all families have.
    more: says the rest, of what has been found.
    reads: further keys that it reads, or that mean nothing for this family.
    epsilon: the key of what is added in norms; some files have another one of EPSILONS.
    attends: it has heads.
    """

    architecture: str
    converted: Converted
    keys: Mapping[str, str] = field(default_factory=dict)
    present: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    more: Callable[[Fields, Tensors, Found], Found] | None = None
    reads: tuple[str, ...] = ()
    gating: float | None = SOFTMAX
    epsilon: str = EPSILONS[0]
    attends: bool = True

    @property
    def known(self) -> frozenset[str]:
        """Keys that need not be refused."""
        return frozenset((*self.keys, *self.reads, "nextn_predict_layers"))


def described(row: Stated, fields: Fields, tensors: Tensors) -> Found:
    """What config.json would say.

    Raises:
        CheckpointError: a key is missing or absurd.
        UnsupportedError: it asks for what is not supported.
    """
    _check_rest(row, fields)
    patterns = {_LAYER.sub("blk.*.", name, count=1) for name in tensors}
    found = _sizes(row, fields, tensors)
    found |= rotation(fields, tensors, found.get("head_dim", MAX_HEADS))
    found |= {ours: value(fields, theirs) for theirs, ours in row.keys.items()}
    found |= {ours: tensor in patterns for ours, tensor in row.present.items()}
    found |= row.said
    if row.more:
        found |= row.more(fields, tensors, found)
    return {row.renamed.get(key, key): one for key, one in found.items()}


def value(fields: Fields, key: str) -> Any:
    """The value of a key, or what llama.cpp takes for granted; raises CheckpointError."""
    if key in FLAGS:
        return fields.flag(key, FLAGS[key])
    if key in NUMBERS:  # 0 is none
        return NUMBERS[key] if fields.raw.get(key) == 0 else fields.number(key, NUMBERS[key])
    if key in INTEGERS:
        return fields.integer(key, 0, low=0, high=MAX_TOKENS) or INTEGERS[key]
    return fields.integer(key, low=0)


def layers_with(tensors: Tensors, name: str, count: int) -> list[bool]:
    """Of each layer, whether it has this tensor."""
    return [f"blk.{layer}.{name}" in tensors for layer in range(count)]


def mlp_types(tensors: Tensors, count: int) -> list[str]:
    """Of each layer, as config.json calls those with experts and those without."""
    sparse = layers_with(tensors, "ffn_gate_inp.weight", count)
    return ["sparse" if one else "dense" for one in sparse]


def _check_rest(row: Stated, fields: Fields) -> None:
    if row.gating is not None:
        fields.constant("expert_gating_func", row.gating)
    for key in ROUTING:
        if key not in row.known and fields.raw.get(key) not in PLAIN:
            raise UnsupportedError(
                f"{fields.where}: {key} is {fields.raw[key]!r:.60}, which models of this "
                "architecture do not have; use the model's safetensors."
            )
    fields.refuse(*(key for key in UNUSUAL if key not in row.known))


def _sizes(row: Stated, fields: Fields, tensors: Tensors) -> Found:
    width, keys = fields.integer("embedding_length"), (row.epsilon, *EPSILONS)
    found: Found = {
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "hidden_size": width,
        "num_hidden_layers": num_layers(fields),
        "max_position_embeddings": fields.integer("context_length", high=MAX_TOKENS),
        "rms_norm_eps": fields.number(next((k for k in keys if k in fields), row.epsilon)),
        "tie_word_embeddings": "output.weight" not in tensors,
    }
    if inner := widest(fields, "feed_forward_length", 0):
        found["intermediate_size"] = inner
    return found | _heads(fields, width) if row.attends else found


def _heads(fields: Fields, width: int) -> Found:
    key = "attention.head_count"
    count = fields.replaced(key, widest(fields, key)).integer(key, high=MAX_HEADS)
    dim = fields.integer("attention.key_length", max(1, width // count), high=MAX_HEADS)
    latent = "attention.kv_lora_rank" in fields
    if not latent and fields.integer("attention.value_length", dim, high=MAX_HEADS) != dim:
        raise UnsupportedError(f"{fields.where} has values of another size than its keys.")
    return {
        "num_attention_heads": count,
        "num_key_value_heads": widest(fields, "attention.head_count_kv", count) or count,
        "head_dim": dim,
    }
