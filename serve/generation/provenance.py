"""Where a response came from, for who asks: cached tokens by place, and whose weights wrote it.

The names are SGLang's (`return_cached_tokens_details`) and vLLM's (`return_weight_versions`).
"""

from msgspec import Struct

VERSION = "default"  # as vLLM calls weights that nobody has changed since the start


class WeightVersionSpan(Struct):
    """Tokens [start, end) of an answer, and the weights that wrote them."""

    start: int
    end: int
    version: str = VERSION


class CachedTokensDetails(Struct):
    """Of a prompt's tokens those whose cache was on the device, and in the host's memory."""

    device: int
    host: int


class SglExt(Struct):
    """What SGLang adds to OpenAI's responses."""

    cached_tokens_details: CachedTokensDetails


def weight_versions(num_tokens: int) -> list[WeightVersionSpan]:
    """Of an answer: a server never changes its model's weights."""
    return [WeightVersionSpan(0, num_tokens)] if num_tokens else []
