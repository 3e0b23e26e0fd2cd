"""Which answers come with the experts that their tokens took, and how that is written.

    vLLM     routed_experts of a choice        base64 of a .npy file, uint8 or uint16 [n, L, k]
    SGLang   routed_experts of meta_info,      base64 of int32 [n, L, k], little-endian
             and of sglext

n counts the tokens of prompt and answer without the last, from the one on that the request names.
"""

import io
from base64 import b64encode
from collections.abc import Sequence

import numpy as np

from engine.errors import RequestError
from engine.messages import ModelInfo
from engine.vectors.routed_rows import Experts, RoutedRows
from serve.protocol.decoding import GenerationRequest


def rows_told(request: GenerationRequest, info: ModelInfo) -> RoutedRows | None:
    """How experts are told to who made a request: with answers that no beam search found, of
    streams where it asks; raises RequestError if nothing is known of them."""
    if request.return_routed_experts and info.routed is None:
        raise RequestError(
            "return_routed_experts needs the setting --enable-return-routed-experts.",
            "return_routed_experts",
        )
    streamed = request.stream and not request.return_routed_experts
    return None if streamed or request.use_beam_search else info.routed


def as_file(rows: Sequence[Experts]) -> str:
    """Those of a choice, as vLLM writes them."""
    file = io.BytesIO()
    np.save(file, np.concatenate(rows), allow_pickle=False)
    return b64encode(file.getbuffer()).decode()


def as_numbers(rows: Sequence[Experts]) -> str:
    """Those of a choice, as SGLang writes them."""
    return b64encode(np.concatenate(rows).astype("<i4").tobytes()).decode()
