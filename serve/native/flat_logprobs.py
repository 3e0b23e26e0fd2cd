"""The likeliest tokens of many positions as two arrays, where lists of lists are long to write.

    top_logprobs_val_flat, _idx_flat    log-probabilities and tokens of one position after the other
    top_logprobs_shape                  [positions, likeliest of each]
    top_logprobs_null_prefix            positions before these, of which nothing can be said

As base64 they are little-endian float32 and int32, and say so. Names are SGLang's, "input_" before
those of a prompt and "output_" before those of an answer.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType

Side = Literal["input", "output"]
Listed = tuple[float | None, int, str | None]


@dataclass(frozen=True, slots=True)
class Flat:
    """Of which sides they are flat, and how they are written."""

    input: bool = False
    output: bool = False
    base64: bool = False

    def written(
        self, side: Side, positions: Sequence[Sequence[Listed]], top: int, null_prefix: int
    ) -> dict[str, Any]:
        """The fields of `FlatLogprobs` for the `top` likeliest tokens of each position."""
        listed = [entry for position in positions for entry in position]
        values, tokens = [value for value, *_ in listed], [token for _, token, _ in listed]
        found: dict[str, Any] = {
            "shape": [len(positions), len(positions[0]) if positions else top],
            "null_prefix": null_prefix,
        }
        if self.base64:
            for name, numbers, dtype in (("val", values, "float32"), ("idx", tokens, "int32")):
                array = np.asarray(numbers, np.dtype(dtype).newbyteorder("<"))
                found[f"{name}_flat_b64"] = b64encode(array.tobytes()).decode()
                found[f"{name}_flat_b64_dtype"] = dtype
        else:
            found |= {"val_flat": values, "idx_flat": tokens}
        return {f"{side}_top_logprobs_{name}": value for name, value in found.items()}


class FlatLogprobs(Struct, kw_only=True):
    """Those of a prompt and of an answer, each where it was asked for."""

    input_top_logprobs_val_flat: list[float] | Raw | UnsetType = UNSET
    input_top_logprobs_idx_flat: list[int] | Raw | UnsetType = UNSET
    input_top_logprobs_val_flat_b64: str | Raw | UnsetType = UNSET
    input_top_logprobs_val_flat_b64_dtype: str | Raw | UnsetType = UNSET
    input_top_logprobs_idx_flat_b64: str | Raw | UnsetType = UNSET
    input_top_logprobs_idx_flat_b64_dtype: str | Raw | UnsetType = UNSET
    input_top_logprobs_shape: list[int] | Raw | UnsetType = UNSET
    input_top_logprobs_null_prefix: int | Raw | UnsetType = UNSET
    output_top_logprobs_val_flat: list[float] | UnsetType = UNSET
    output_top_logprobs_idx_flat: list[int] | UnsetType = UNSET
    output_top_logprobs_val_flat_b64: str | UnsetType = UNSET
    output_top_logprobs_val_flat_b64_dtype: str | UnsetType = UNSET
    output_top_logprobs_idx_flat_b64: str | UnsetType = UNSET
    output_top_logprobs_idx_flat_b64_dtype: str | UnsetType = UNSET
    output_top_logprobs_shape: list[int] | UnsetType = UNSET
    output_top_logprobs_null_prefix: int | UnsetType = UNSET
