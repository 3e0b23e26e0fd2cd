"""T5's GGUF files, of the whole model and of its encoder alone.

    enc.blk.3.attn_q.weight          encoder.block.3.layer.0.SelfAttention.q.weight
    dec.blk.3.cross_attn_q.weight    decoder.block.3.layer.1.EncDecAttention.q.weight

Owns their names, and what config.json says of such a model. Refuses to know the file, and JAX.
Source: `MODEL_TENSORS` of the package gguf; llama.cpp's `conversion/t5.py` and `src/models/t5.cpp`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from models.config.fields import MAX_HEADS, MAX_LAYERS, MAX_TOKENS, Fields
from models.errors import UnsupportedError
from models.quantised.tensors import Readable

Tensors = Mapping[str, Readable]

ARCHITECTURES: Mapping[str, str] = {
    "t5": "T5ForConditionalGeneration",
    "t5encoder": "T5EncoderModel",
}
MAX_DISTANCE = 128  # which no key says
_HEAD, _TABLE = "output.weight", "token_embd.weight"
_COMPARED = 64  # rows


def names(tensors: Tensors) -> dict[str, str]:
    """llama.cpp's names -> those of the checkpoint, in which a gated MLP has other ones."""
    gated = "enc.blk.0.ffn_gate.weight" in tensors
    return {
        "token_embd": "shared",
        "output": "lm_head",
        "enc.output_norm": "encoder.final_layer_norm",
        "dec.output_norm": "decoder.final_layer_norm",
        **dict(_of_side("enc", "encoder", 1, gated)),
        **dict(_of_side("dec", "decoder", 2, gated)),
    }


def _of_side(short: str, side: str, mlp: int, gated: bool) -> Iterator[tuple[str, str]]:
    theirs, ours = f"{short}.blk.*", f"{side}.block.*.layer"
    attentions = {"attn": f"{ours}.0.SelfAttention"}
    if side == "decoder":
        attentions["cross_attn"] = f"{ours}.1.EncDecAttention"
    for place, (name, module) in enumerate(attentions.items()):
        yield from ((f"{theirs}.{name}_{x}", f"{module}.{x}") for x in "qkvo")
        yield f"{theirs}.{name}_rel_b", f"{module}.relative_attention_bias"
        yield f"{theirs}.{name}_norm", f"{ours}.{place}.layer_norm"
    dense = f"{ours}.{mlp}.DenseReluDense"
    yield f"{theirs}.ffn_norm", f"{ours}.{mlp}.layer_norm"
    yield f"{theirs}.ffn_gate", f"{dense}.wi_0"
    yield f"{theirs}.ffn_up", f"{dense}.wi_1" if gated else f"{dense}.wi"
    yield f"{theirs}.ffn_down", f"{dense}.wo"


def needed(tensors: Tensors) -> dict[str, Readable]:
    """Without a head that is the embedding once more."""
    return {name: one for name, one in tensors.items() if name != _HEAD or not is_tied(tensors)}


def is_tied(tensors: Tensors) -> bool:
    """Whether the head is the embedding, which T5 of 2019 has, and is divided by sqrt(D) then.

    Files may hold it twice, each in blocks of its own, so what is nearly equal is the same.
    """
    if _HEAD not in tensors or _TABLE not in tensors:
        return True
    if tensors[_HEAD].shape != tensors[_TABLE].shape:
        return False
    rows = min(_COMPARED, tensors[_HEAD].shape[0])
    head, table = (tensors[one].read(0, rows).astype(np.float32) for one in (_HEAD, _TABLE))
    return bool(np.linalg.norm(head - table) < 0.5 * np.linalg.norm(table))


def config(name: str, fields: Fields, tensors: Tensors) -> dict[str, Any]:
    """What config.json would say, but for the ids of tokens.

    Raises CheckpointError and UnsupportedError.
    """
    layers, width = (
        fields.integer("block_count", high=MAX_LAYERS),
        fields.integer("embedding_length"),
    )
    heads = fields.integer("attention.head_count", high=MAX_HEADS)
    dim = fields.integer("attention.key_length", max(1, width // heads), high=MAX_HEADS)
    if fields.integer("attention.value_length", dim, high=MAX_HEADS) != dim:
        raise UnsupportedError(f"{fields.where} has values of another size than its keys.")
    by_layer = "enc.blk.1.attn_rel_b.weight" in tensors  # umT5's
    return {
        "architectures": [f"{'UM' if by_layer else ''}{ARCHITECTURES[name]}"],
        "d_model": width,
        "d_kv": dim,
        "d_ff": fields.integer("feed_forward_length"),
        "num_layers": layers,
        "num_decoder_layers": fields.integer("decoder_block_count", layers, high=MAX_LAYERS),
        "num_heads": heads,
        "n_positions": fields.integer("context_length", 512, high=MAX_TOKENS),
        "relative_attention_num_buckets": fields.integer("attention.relative_buckets_count", low=4),
        "relative_attention_max_distance": MAX_DISTANCE,
        "layer_norm_epsilon": fields.number("attention.layer_norm_rms_epsilon"),
        "feed_forward_proj": "gated-gelu" if "enc.blk.0.ffn_gate.weight" in tensors else "relu",
        "tie_word_embeddings": is_tied(tensors),
        "decoder_start_token_id": fields.integer("decoder_start_token_id", 0, low=0),
    }
