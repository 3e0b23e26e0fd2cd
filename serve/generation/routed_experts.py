"""Which answers come with the experts that their tokens took, and how that is written.

    vLLM     routed_experts of a choice        base64 of a .npy file, uint8 or uint16 [n, L, k]
    SGLang   meta_info.routed_experts          base64 of int32 [n, L, k], little-endian

n counts the tokens of prompt and answer without the last, from the one on that the request names.
"""

import io
from base64 import b64encode

import numpy as np

from engine.messages import ModelInfo
from engine.outputs import OutputDelta
from engine.vectors.routed_rows import RoutedRows
from serve.protocol.decoding import GenerationRequest


def rows_told(request: GenerationRequest, info: ModelInfo) -> RoutedRows | None:
    """How experts are told to who made a request: with whole answers that no beam search found."""
    return None if request.stream or request.use_beam_search else info.routed


def as_file(delta: OutputDelta) -> str:
    """Those of a choice, as vLLM writes them."""
    file = io.BytesIO()
    np.save(file, np.concatenate(delta.routed_experts or []), allow_pickle=False)
    return b64encode(file.getbuffer()).decode()


def as_numbers(delta: OutputDelta) -> str:
    """Those of a choice, as SGLang writes them."""
    rows = np.concatenate(delta.routed_experts or [])
    return b64encode(rows.astype("<i4").tobytes()).decode()
