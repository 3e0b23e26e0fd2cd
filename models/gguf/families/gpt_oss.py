"""gpt-oss's experts: two tensors in a GGUF file whose columns are in turns in the checkpoint.

    blk.3.ffn_gate_exps.weight [E, F, D] ┐
    blk.3.ffn_up_exps.weight   [E, F, D] ┴─> mlp.experts.gate_up_proj [E, D, 2 F]: gate 0, up 0 ..

Owns undoing that. Refuses to know the file, and JAX.
Source: `GptOssModel` of llama.cpp's `convert_hf_to_gguf.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from models.errors import CheckpointError
from models.quantised.tensors import Computed, Readable

_NAME = re.compile(r"blk\.([0-9]{1,4})\.(attn_sinks|ffn_(?:gate|up|down)_exps)\.(weight|bias)")


@dataclass(frozen=True)
class InTurns(Computed):
    """Outputs of one or two tensors in turns, of all experts or of one; kernels as [in, out]."""

    name: str
    tensors: tuple[Readable, ...]
    kernels: bool  # else biases

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        *lead, outputs = self.tensors[0].shape if not self.kernels else self._turned
        return (*lead, outputs * len(self.tensors))

    @property
    def _turned(self) -> tuple[int, ...]:
        *lead, outputs, inputs = self.tensors[0].shape
        return (*lead, inputs, outputs)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Indices `start` to `stop` of the first axis; of one expert all is read for it."""
        whole = len(self.shape) == (2 if self.kernels else 1)
        parts = [one.read() if whole else one.read(start, stop) for one in self.tensors]
        if self.kernels:
            parts = [part.swapaxes(-1, -2) for part in parts]
        joined = np.stack(parts, axis=-1).astype(np.float32)
        outputs = joined.reshape(*joined.shape[:-2], -1)
        return outputs[start:stop] if whole else outputs

    def entry(self, index: int) -> Readable:
        """One expert."""
        return replace(self, tensors=tuple(one.entry(index) for one in self.tensors))


def gathered(tensors: Mapping[str, Readable]) -> dict[str, Readable]:
    """With experts and sinks as the checkpoint has them; raises CheckpointError."""
    found: dict[str, Readable] = {}
    held: dict[tuple[str, str], Readable] = {}  # ("model.layers.3", "ffn_up_exps.bias") -> ...
    for name, tensor in tensors.items():
        if match := _NAME.fullmatch(name):
            held[f"model.layers.{match[1]}", f"{match[2]}.{match[3]}"] = tensor
        else:
            found[name] = tensor
    for layer, what in held:
        module, _, leaf = what.partition(".")
        suffix = "" if leaf == "weight" else "_bias"
        if module == "attn_sinks":
            found[f"{layer}.self_attn.sinks"] = held[layer, what]
        elif module != "ffn_up_exps":  # which goes with the gate
            name = f"{layer}.mlp.experts.{'down' if 'down' in module else 'gate_up'}_proj{suffix}"
            names = [what] if "down" in module else [what, f"ffn_up_exps.{leaf}"]
            parts = [held.get((layer, one)) for one in names]
            found[name] = _together(name, parts, leaf == "weight")
    return found


def _together(name: str, parts: list[Readable | None], kernels: bool) -> InTurns:
    known = tuple(part for part in parts if part is not None)
    axes = 3 if kernels else 2
    if len(known) < len(parts) or len({part.shape for part in known}) > 1:
        raise CheckpointError(
            f"The GGUF file does not have gate and up of {name!r} in one shape; convert it again."
        )
    if len(known[0].shape) != axes:
        raise CheckpointError(
            f"Tensor {known[0].name!r} has the shape {list(known[0].shape)}, and {axes} axes are "
            f"called for; convert it again."
        )
    return InTurns(name, known, kernels)
