"""Tensors that are one in the checkpoint and several in a GGUF file.

    attn_k_b [N, R, K] and attn_v_b [N, V, R]    kv_b_proj [N (K + V), R]          KeysAndValues
    ffn_gate_exps and ffn_up_exps                input_linear [E, 2 F, D]          Concatenated
    attn_qkv and attn_gate                       in_proj_qkvz, by heads of keys    ByGroup

Owns laying them together. Refuses to know names and families, and JAX.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.config.fields import Fields
from models.errors import CheckpointError
from models.quantised.tensors import Computed, Readable

Made = Callable[[str, Sequence[Readable], Fields], Readable]


@dataclass(frozen=True)
class Join:
    """One tensor of the checkpoint, * the layer, and those of the file that it is made of.

    unless: what the file may have instead; then it has the others, if at all, for nothing.
    beside: what the file must have besides; else its tensors are others of the checkpoint.
    """

    name: str
    parts: tuple[str, ...]
    made: Made
    unless: str = ""
    beside: str = ""


@dataclass(frozen=True)
class Concatenated(Computed):
    """Tensors behind each other, along the first axis or the second."""

    name: str
    tensors: tuple[Readable, ...]
    axis: int = 0

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        kinds = {tensor.dtype for tensor in self.tensors}
        return kinds.pop() if len(kinds) == 1 else np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        shape = list(self.tensors[0].shape)
        shape[self.axis] = sum(tensor.shape[self.axis] for tensor in self.tensors)
        return tuple(shape)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of the first axis."""
        stop, parts, at = self.shape[0] if stop is None else stop, [], 0
        for tensor in self.tensors:
            end = tensor.shape[0]
            first, last = (start, stop) if self.axis else (max(start - at, 0), min(stop - at, end))
            if first < last:
                parts.append(tensor.read(first, last).astype(self.dtype))
            at += end
        return np.concatenate(parts, axis=self.axis)

    def entry(self, index: int) -> Readable:
        """One expert."""
        if not self.axis:
            return super().entry(index)
        return replace(self, tensors=tuple(one.entry(index) for one in self.tensors), axis=0)


@dataclass(frozen=True)
class KeysAndValues(Computed):
    """Of each head, what makes its keys of a latent and then what makes its values."""

    name: str
    keys: Readable  # [N, R, K]
    values: Readable  # [N, V, R]

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        heads, values, rank = self.values.shape
        return heads * (self.keys.shape[2] + values), rank

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, of heads that are read whole."""
        stop = self.shape[0] if stop is None else stop
        size = self.shape[0] // self.keys.shape[0]
        first, last = start // size, -(-stop // size)
        parts = self.keys.read(first, last).swapaxes(1, 2), self.values.read(first, last)
        heads = np.concatenate([part.astype(np.float32) for part in parts], axis=1)
        rows: np.ndarray = heads.reshape(-1, self.shape[1])
        return rows[start - first * size : stop - first * size]


@dataclass(frozen=True)
class ByGroup(Computed):
    """Parts of all groups behind each other, as all parts of each group behind each other."""

    name: str
    tensor: Readable  # [groups * (a + b + ..), D]: a of all, b of all ..
    groups: int
    sizes: tuple[int, ...]  # rows that a group has of each part

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.tensor.dtype

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.tensor.shape

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows `start` to `stop`, of groups that are read whole."""
        stop = self.shape[0] if stop is None else stop
        whole = sum(self.sizes)
        first, last = start // whole, -(-stop // whole)
        parts, at = [], 0
        for size in self.sizes:
            rows = self.tensor.read(at + first * size, at + last * size)
            parts.append(rows.reshape(last - first, size, -1))
            at += self.groups * size
        rows = np.concatenate(parts, axis=1).reshape(-1, *self.shape[1:])
        return rows[start - first * whole : stop - first * whole]


def concatenated(name: str, tensors: Sequence[Readable], fields: Fields) -> Readable:
    """Gate and up: outputs of a matrix, or of those of all experts."""
    axes = {len(tensor.shape) for tensor in tensors}
    if len({tensor.shape for tensor in tensors}) > 1 or not axes <= {2, 3}:
        raise misfit(name, tensors, fields)
    return Concatenated(name, tuple(tensors), axis=axes.pop() - 2)


def keys_and_values(name: str, tensors: Sequence[Readable], fields: Fields) -> Readable:
    """What latent attention makes of latents."""
    keys, values = tensors
    fits = len(keys.shape) == len(values.shape) == 3
    if not fits or (keys.shape[0], keys.shape[1]) != (values.shape[0], values.shape[2]):
        raise misfit(name, tensors, fields)
    return KeysAndValues(name, keys, values)


def by_key_head(name: str, tensors: Sequence[Readable], fields: Fields) -> Readable:
    """Queries, keys, values and gates of the gated delta rule."""
    groups, key = fields.integer("ssm.group_count"), fields.integer("ssm.state_size")
    inner = fields.integer("ssm.inner_size")
    qkv, gates = tensors
    rows, fits = (2 * groups * key + inner, inner), len(qkv.shape) == len(gates.shape) == 2
    fits = fits and qkv.shape[1] == gates.shape[1]
    if not fits or inner % groups or (qkv.shape[0], gates.shape[0]) != rows:
        raise misfit(name, tensors, fields)
    both = Concatenated(name, (qkv, gates))
    return ByGroup(name, both, groups, (key, key, inner // groups, inner // groups))


def misfit(name: str, tensors: Sequence[Readable], fields: Fields) -> CheckpointError:
    """What to raise where parts are not of one tensor."""
    found = " and ".join(f"{one.name!r} {list(one.shape)}" for one in tensors)
    return CheckpointError(
        f"{fields.where} has {found}, which together are no {name!r}; convert the model again."
    )
