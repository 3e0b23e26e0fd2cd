"""Where a response came from, for who asks: cached tokens by place, and whose weights wrote it.

The names are SGLang's (`return_cached_tokens_details`) and vLLM's (`return_weight_versions`).
"""

from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType

from serve.generation.drafts import SpecTokensDetails


class WeightVersionSpan(Struct):
    """Tokens [start, end) of an answer, and the weights that wrote them."""

    start: int
    end: int
    version: str


class CachedTokensDetails(Struct):
    """Of a prompt's tokens those whose cache was on the device, and in the host's memory."""

    device: int
    host: int


class SglExt(Struct):
    """What SGLang adds to OpenAI's responses, each part where it is asked for."""

    routed_experts: str | UnsetType = UNSET  # of the first choice
    cached_tokens_details: CachedTokensDetails | UnsetType = UNSET
    # of the only choice, or of each that had guessed tokens
    spec_tokens_details: SpecTokensDetails | list[SpecTokensDetails] | UnsetType = UNSET
    input_ids: list[int] | UnsetType = UNSET
    output_ids: list[list[int]] | UnsetType = UNSET  # of each choice


def weight_versions(
    earlier: Sequence[tuple[int, str]], last: str, num_tokens: int
) -> list[WeightVersionSpan]:
    """Of an answer that has ended: one span, unless weights were changed while it was written.

    `earlier`: up to which token by which; the rest is of `last`.
    """
    spans: list[WeightVersionSpan] = []
    for end, version in (*earlier, (num_tokens, last)):
        start = spans[-1].end if spans else 0
        if spans and spans[-1].version == version:
            spans[-1].end = end
        elif end > start:
            spans.append(WeightVersionSpan(start, end, version))
    return spans
