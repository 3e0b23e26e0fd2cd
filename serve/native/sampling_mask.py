"""Which tokens an answer's tokens were drawn among, for training that is to know.

    meta_info.output_token_sampling_mask        the ids, of each token of the answer
    meta_info.output_token_sampling_logprobs    of the token itself ("selected"), or of all of these
    meta_info.output_token_sampling_mask_length tokens so far

Names are SGLang's. They are read from the log-probabilities of an engine whose --logprobs-mode is
processed_logprobs, of which it tells MAX_LOGPROBS: no more may be left to draw from.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from msgspec.structs import replace

from engine.errors import RequestError
from engine.messages import ModelInfo
from engine.outputs import PositionLogprobs
from engine.sampling.params import MAX_LOGPROBS, SamplingParams

LogprobsMode = Literal["selected", "support"]
_FIELD = "return_sampling_mask"


def check_mask(wanted: bool | None, mode: LogprobsMode | None) -> None:
    """Raise RequestError for a mode of nothing."""
    if mode is not None and not wanted:
        raise RequestError(f"sampling_logprobs_mode needs {_FIELD}.", "sampling_logprobs_mode")


def told_by(wanted: bool | None, mode: LogprobsMode | None) -> LogprobsMode | None:
    """Of which tokens log-probabilities go with the masks, if these are wanted."""
    return (mode or "selected") if wanted else None


def with_mask(params: SamplingParams, info: ModelInfo) -> SamplingParams:
    """The options of a request whose masks are wanted; raises RequestError if they cannot be."""
    if not info.processed_logprobs:
        raise RequestError(
            f"{_FIELD} needs the setting --logprobs-mode processed_logprobs.", _FIELD
        )
    if params.draws and not 1 <= params.top_k <= MAX_LOGPROBS:
        raise RequestError(
            f"{_FIELD} needs a top_k from 1 to {MAX_LOGPROBS}, or temperature 0; got top_k "
            f"{params.top_k}.",
            _FIELD,
        )
    if params.logprob_token_ids is not None:
        raise RequestError(f"{_FIELD} cannot be used with tokens that are named.", _FIELD)
    return replace(params, logprobs=MAX_LOGPROBS)


def masks_told(
    positions: Sequence[PositionLogprobs], mode: LogprobsMode, *, drawn: bool
) -> dict[str, Any]:
    """The fields of `meta_info`; where nothing is `drawn` there is no other token."""
    left = [
        {i: entry.logprob for i, entry in position.items() if entry.logprob > -math.inf}
        if drawn
        else {next(iter(position)): 0.0}
        for position in positions
    ]
    support = mode == "support"
    return {
        "output_token_sampling_mask": [[*each] for each in left],
        "output_token_sampling_logprobs": [
            [*each.values()] if support else next(iter(each.values())) for each in left
        ],
        "output_token_sampling_mask_length": len(left),
    }
