"""What is done to a model of transformers that stands in for one it does not have.

Each function changes a model in place. Written from the model code that the authors publish beside
their weights: `modeling_baichuan.py` of Baichuan-13B and of Baichuan2, `modeling_decilm.py` of
Llama-3_3-Nemotron-Super-49B.
"""

import math
from typing import Any

import torch
import transformers


def linear_biases(model: transformers.PreTrainedModel) -> None:
    """Queries and keys are not rotated; scores grow by slope * key position (ALiBi)."""
    model.model.rotary_emb.inv_freq.zero_()
    slopes = torch.tensor(alibi_slopes(model.config.num_attention_heads))

    def with_biases(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        mask = kwargs["attention_mask"]  # [1, 1, queries, keys]
        keys = torch.arange(mask.shape[-1])
        return args, {**kwargs, "attention_mask": mask + slopes[:, None, None] * keys}

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(with_biases, with_kwargs=True)


def head_of_unit_rows(model: transformers.PreTrainedModel) -> None:
    """Logits come from rows of length 1."""
    model.lm_head.weight.data = torch.nn.functional.normalize(model.lm_head.weight.data)


def layers_of_their_own_sizes(model: transformers.PreTrainedModel) -> None:
    """Rows and columns of matrices end where the checkpoint has no more numbers."""
    for layer in model.model.layers:
        for module in layer.modules():
            if isinstance(module, torch.nn.Linear):
                there = ~module.weight.data.isnan()
                module.weight.data = module.weight.data[there.any(1)][:, there.any(0)]
        attention = layer.self_attn
        kv_heads = len(attention.k_proj.weight) // attention.head_dim
        attention.num_key_value_groups = model.config.num_attention_heads // kv_heads


def alibi_slopes(heads: int) -> list[float]:
    """The published recursion: those of a power of two, then every other one of the next."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    closest = 2 ** math.floor(math.log2(heads))
    return alibi_slopes(closest) + alibi_slopes(2 * closest)[0::2][: heads - closest]
