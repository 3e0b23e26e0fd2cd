"""Files with queries, keys and values in one tensor where the checkpoint has three.

    blk.3.attn_qkv.weight [N H + 2 K H, D]    blk.3.attn_q.weight, attn_k.weight, attn_v.weight

llama.cpp's converter writes them so with `--fuse-qkv`. Owns taking them apart. Refuses to know
families, and JAX.
"""

import re
from collections.abc import Mapping

from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError
from models.gguf.by_layer import of_layer
from models.gguf.tensors.undoing import Rows
from models.quantised.tensors import Readable

Tensors = Mapping[str, Readable]

_FUSED = re.compile(r"blk\.([0-9]{1,4})\.attn_qkv\.(weight|bias)")
_UNEVEN = ("kda.head_dim", "attention.key_length_swa")  # of files whose heads have several sizes


def apart(tensors: Tensors, names: Mapping[str, str], fields: Fields) -> Tensors:
    """With three for each of these; `names` are those that the family knows.

    Layers without attention that have such a tensor of their own keep it.

    Raises:
        CheckpointError: it has other rows than the keys call for.
        UnsupportedError: the family's heads have several sizes.
    """
    has_own = "blk.*.attn_qkv" in names and "blk.*.ssm_out" not in names
    if has_own or "blk.*.attn_q" not in names:
        return tensors
    found: dict[str, Readable] = {}
    for name, tensor in tensors.items():
        match = _FUSED.fullmatch(name)
        if match is None or f"blk.{match[1]}.ssm_out.weight" in tensors:
            found[name] = tensor
            continue
        first = 0
        for which, rows in zip("qkv", _rows(tensor, int(match[1]), fields), strict=True):
            found[f"blk.{match[1]}.attn_{which}.{match[2]}"] = Rows(tensor, first, rows)
            first += rows
    return found


def _rows(tensor: Readable, layer: int, fields: Fields) -> tuple[int, int, int]:
    """Of queries, which may have gates among them, of keys and of values."""
    if any(key in fields for key in _UNEVEN):
        raise UnsupportedError(
            f"{fields.where} has queries, keys and values in one tensor and heads of several "
            "sizes, which is not supported; convert the model without --fuse-qkv."
        )
    heads = of_layer(fields, "attention.head_count", layer)
    groups = of_layer(fields, "attention.head_count_kv", layer, heads)
    size = fields.integer("attention.key_length", fields.integer("embedding_length") // heads)
    values = fields.integer("attention.value_length", size)
    queries = tensor.shape[0] - groups * (size + values)
    if queries <= 0 or queries % (heads * size):
        raise CheckpointError(
            f"Tensor {tensor.name!r} has {tensor.shape[0]} rows, which are no {heads} heads of "
            f"{size} with {groups} of keys and values; convert the model again."
        )
    return queries, groups * size, groups * values
