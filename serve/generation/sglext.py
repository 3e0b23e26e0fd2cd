"""`sglext`: what SGLang tells beside an answer, gathered while that is made."""

from msgspec import UNSET, UnsetType

from engine.outputs import OutputDelta
from engine.vectors.routed_rows import Experts
from serve.generation.provenance import SglExt
from serve.generation.routed_experts import as_numbers
from serve.generation.usage import TokenCounter
from serve.protocol.decoding import GenerationRequest


class Extension:
    """Of one response, what its request asks for."""

    def __init__(
        self,
        request: GenerationRequest,
        counter: TokenCounter,
        *,
        input_ids: list[int] | None = None,
        output_ids: bool = False,
    ) -> None:
        """`input_ids` are told as they are, `output_ids` of each choice if they are wanted."""
        self._request = request
        self._counter = counter
        self._input_ids = input_ids
        self._output_ids: dict[int, list[int]] | None = {} if output_ids else None
        self._experts: dict[int, list[Experts]] = {}  # of each choice

    def add(self, choice: int, delta: OutputDelta) -> None:
        """What one delta brought to one choice."""
        if self._output_ids is not None:
            self._output_ids.setdefault(choice, []).extend(delta.token_ids)
        if self._request.return_routed_experts and delta.routed_experts:
            self._experts.setdefault(choice, []).extend(delta.routed_experts)

    def told(self) -> SglExt | UnsetType:
        """All of it."""
        request, found = self._request, SglExt()
        if self._experts:
            found.routed_experts = as_numbers(self._experts[min(self._experts)])
        if request.return_cached_tokens_details:
            found.cached_tokens_details = self._counter.cached()
        if request.return_spec_tokens_details and (drafts := self._counter.drafts()):
            found.spec_tokens_details = drafts[0] if len(drafts) == 1 else drafts
        if self._input_ids is not None:
            found.input_ids = self._input_ids
        if self._output_ids is not None:
            found.output_ids = [self._output_ids[choice] for choice in sorted(self._output_ids)]
        return UNSET if found == SglExt() else found
