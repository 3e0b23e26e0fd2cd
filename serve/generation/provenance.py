"""Where a response came from, for who asks: cached tokens by place, and whose weights wrote it.

The names are SGLang's (`return_cached_tokens_details`) and vLLM's (`return_weight_versions`).
"""

from collections.abc import Mapping

from msgspec import Struct

from engine.outputs import OutputDelta

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


class CachedTokens:
    """Those of each prompt, by where they were."""

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._found: dict[int, tuple[int, int]] = {}

    def add(self, deltas: Mapping[int, OutputDelta]) -> None:
        """Take what came; the first delta of a choice says it."""
        for choice, delta in deltas.items():
            if delta.num_cached_tokens:
                known = self._found.get(choice // self._samples, (0, 0))
                new = delta.num_cached_tokens, delta.num_external_tokens
                self._found[choice // self._samples] = max(known, new)

    @property
    def shown(self) -> SglExt:
        """Of all prompts together."""
        total = sum(cached for cached, _ in self._found.values())
        host = sum(external for _, external in self._found.values())
        return SglExt(CachedTokensDetails(total - host, host))
