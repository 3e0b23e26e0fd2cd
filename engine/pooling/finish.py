"""From what the model gave to what was asked for: a shorter vector, one of length 1, probabilities.

On the host, in float32: a vector is a few thousand numbers.
"""

from collections.abc import Sequence

import numpy as np

from engine.errors import RequestError
from engine.messages import PoolRequest
from engine.pooling_params import PoolingParams
from models.pooling import PoolingSpec

_TINY = 1e-12  # PyTorch's normalize divides by no less


def check(
    request: PoolRequest, spec: PoolingSpec, *, width: int, vocab_size: int, max_model_len: int,
    token_types: int,
) -> None:  # fmt: skip
    """Raise `RequestError` naming the field that cannot be served by this model."""
    ids, kinds = request.prompt_token_ids, request.token_type_ids
    if not ids:
        raise RequestError("The input is empty: it must hold at least one token.", "input")
    if len(ids) > max_model_len:
        raise RequestError(
            f"The input has {len(ids)} tokens and this model takes {max_model_len}; shorten it, or "
            "send truncate_prompt_tokens -1 to have it cut.",
            "input",
        )
    if min(ids) < 0 or max(ids) >= vocab_size:
        wrong = next(token for token in ids if not 0 <= token < vocab_size)
        raise RequestError(
            f"input holds token id {wrong}, which is no id of this model (0 to {vocab_size - 1}).",
            "input",
        )
    if kinds and (len(kinds) != len(ids) or not 0 <= min(kinds) <= max(kinds) < token_types):
        raise RequestError("The types of the tokens are not this model's.", "input")
    if request.params.dimensions is not None:
        _check_dimensions(request.params.dimensions, spec, width)


def _check_dimensions(asked: int, spec: PoolingSpec, width: int) -> None:
    if asked == width and spec.task == "embed":
        return
    if spec.task != "embed" or not spec.matryoshka:
        raise RequestError(
            "This model's vectors cannot be shortened: its config.json has neither is_matryoshka "
            "nor matryoshka_dimensions; leave out dimensions.",
            "dimensions",
        )
    if not 1 <= asked <= width or (spec.dimensions and asked not in spec.dimensions):
        sizes = ", ".join(map(str, spec.dimensions)) or f"1 to {width}"
        raise RequestError(f"dimensions is {asked}; this model has {sizes}.", "dimensions")


def finish(
    vector: np.ndarray, spec: PoolingSpec, params: PoolingParams, ids: Sequence[int]
) -> np.ndarray:
    """A float32 vector [W], or one a token of `ids` [tokens, W], as `params` ask for it.

    Of steps only those of the tokens that end one, of which there may be none.
    """
    if spec.per_token and spec.step_tag_id is not None:
        vector = vector[np.asarray(ids) == spec.step_tag_id]
    cut = vector[..., : params.dimensions]
    used = spec.use_activation if params.use_activation is None else params.use_activation
    if not used or spec.activation == "identity":
        return cut
    if spec.activation == "normalize":
        length = np.sqrt(np.sum(cut * cut, axis=-1, keepdims=True))
        return np.asarray(cut / np.maximum(length, np.float32(_TINY)), np.float32)
    if spec.activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-cut)), np.float32)
    raised = np.exp(cut - cut.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)
