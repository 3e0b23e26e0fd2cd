"""Dense families with one peculiarity each: Apertus, DeciLM, and the texts of Qwen 2 to 3 VL.

    xielu.alpha_n [L]                       model.layers.*.mlp.act_fn.alpha_n [1]
    attention.head_count_kv, of each layer  block_configs
    rope.dimension_sections                 of images, which are in files of their own

Owns a row for each. Refuses to know the file, and JAX.
Source: `ApertusModel`, `DeciModel`, `Qwen2VLModel` and `Qwen3VLTextModel` of llama.cpp's
`conversion/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.config.fields import MAX_HEADS, Fields
from models.errors import UnsupportedError
from models.gguf.by_layer import num_layers, of_each
from models.gguf.families.stated import ATTENTION_BIAS, BIASES, Found, Stated, Tensors
from models.gguf.tensors.names import LAYER, LLAMA, Converted
from models.gguf.tensors.undoing import HalvedHeads
from models.quantised.tensors import Computed, Readable

_APERTUS = {
    **LLAMA,
    "blk.*.attn_norm": f"{LAYER}.attention_layernorm",
    "blk.*.ffn_norm": f"{LAYER}.feedforward_layernorm",
}
_LEARNED = ("alpha_n", "alpha_p")
_FIXED = {"xielu.beta": 0.5, "xielu.eps": float(np.float32(-1e-6))}
_MULTIPLE = 256  # of which every MLP of DeciLM's is as large
_SECTIONS = ("rope.dimension_sections", "n_deepstack_layers")


@dataclass(frozen=True)
class _Number(Computed):
    """One number, as [1] or []."""

    name: str
    number: float
    shape: tuple[int, ...] = (1,)

    dtype = np.dtype(np.float32)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Itself, or nothing."""
        found = np.full(self.shape, self.number, np.float32)
        return found[start:stop] if self.shape else found

    def entry(self, index: int) -> Readable:
        """Without its axis."""
        return _Number(self.name, self.number, ())


def _bends(fields: Fields) -> dict[str, Readable]:
    """What each layer's activation has learned."""
    found: dict[str, Readable] = {}
    layers = num_layers(fields)
    for key, one in _FIXED.items():
        if key in fields:
            numbers = fields.numbers(key, layers, low=-1.0)
            if any(number != np.float32(one) for number in numbers):
                raise UnsupportedError(
                    f"{fields.where}: {key} is not {one:g} in every layer, which is not supported; "
                    "use the model's safetensors."
                )
    for which in _LEARNED:
        numbers = fields.numbers(f"xielu.{which}", layers, low=-1e6)
        for layer, number in enumerate(numbers):
            name = f"{LAYER}.mlp.act_fn.{which}".replace("*", str(layer))
            found[name] = _Number(name, number)
    return found


def _apertus(fields: Fields, tensors: Tensors, found: Found) -> Found:
    """Positions that are not stretched, which config.json must say."""
    if found["rope_scaling"] is not None:
        return {}
    return {"rope_parameters": {"rope_type": "default", "rope_theta": found["rope_theta"]}}


def _halved(tensor: Readable, fields: Fields) -> Readable:
    """Of layers that differ in their heads, which are all as long."""
    size = fields.integer("attention.key_length", high=MAX_HEADS)
    return HalvedHeads(tensor, max(1, tensor.shape[0] // size))


def _deci(fields: Fields, tensors: Tensors, found: Found) -> Found:
    layers, width = found["num_hidden_layers"], found["hidden_size"]
    each = [of_each(fields, f"attention.{key}", layers) for key in ("head_count", "head_count_kv")]
    sizes = of_each(fields, "feed_forward_length", layers)
    return {
        "num_key_value_heads": None,
        "intermediate_size": None,
        "block_configs": [
            {"attention": _attention(fields, *heads), "ffn": _ffn(fields, size, width)}
            for *heads, size in zip(*each, sizes, strict=True)
        ],
    }


def _attention(fields: Fields, heads: int, kv_heads: int) -> Found:
    if not kv_heads and heads:
        raise UnsupportedError(
            f"{fields.where} has a layer of {heads} heads without keys, which is linear and not "
            "supported; use another model."
        )
    if not kv_heads:
        return {"no_op": True}
    if heads % kv_heads:
        raise UnsupportedError(f"{fields.where}: {kv_heads} heads of keys do not divide {heads}.")
    return {"n_heads_in_group": heads // kv_heads}


def _ffn(fields: Fields, size: int, width: int) -> Found:
    if size % _MULTIPLE:
        raise UnsupportedError(
            f"{fields.where} has an MLP of {size} units, which is no multiple of {_MULTIPLE}; use "
            "the model's safetensors."
        )
    return {"ffn_mult": 3 * size / (2 * width)} if size else {"no_op": True}


SINGLE: Mapping[str, Stated] = {
    "apertus": Stated(
        "ApertusForCausalLM", Converted(_APERTUS, written=_bends), present=ATTENTION_BIAS,
        said={"hidden_act": "xielu"}, more=_apertus,
    ),
    "deci": Stated(
        "DeciLMForCausalLM",
        Converted(
            LLAMA,
            undone={
                f"blk.*.attn_{x}.{leaf}": _halved for x in "qk" for leaf in ("weight", "bias")
            },
        ),
        present=BIASES,
        more=_deci,
    ),
    "qwen2vl": Stated("Qwen2ForCausalLM", Converted(LLAMA), reads=_SECTIONS),
    "qwen3vl": Stated(
        "Qwen3ForCausalLM", Converted(LLAMA), present=ATTENTION_BIAS, reads=_SECTIONS
    ),
}  # fmt: skip
