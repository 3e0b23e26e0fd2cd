"""Showing what the engine said as `/v1/completions` does, whole or in chunks."""

import time
from collections.abc import Iterator, Sequence

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from engine.outputs import OutputDelta, PositionLogprobs
from engine.tokenizers.tokenizer import Tokenizer
from serve.engine_client import Prompt
from serve.generation.best_of import likeliest
from serve.generation.logprobs import completion_logprobs, prompt_logprobs
from serve.generation.provenance import weight_versions
from serve.generation.routed_experts import as_file
from serve.generation.sglext import Extension
from serve.generation.timing import timing_of
from serve.generation.usage import TokenCounter
from serve.native.hidden_states import last_state
from serve.operations.metrics import Timeline
from serve.protocol.completions import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from serve.protocol.decoding import Usage


class CompletionView:
    """One response; choice c continues prompt c // n."""

    def __init__(
        self,
        request: CompletionRequest,
        prompts: Sequence[Prompt],
        tokenizer: Tokenizer | None,
        response_id: str,
        model_name: str,
        fingerprint: str,
    ) -> None:
        self._request = request
        self._prompts = prompts
        self._tokenizer = tokenizer
        self._id = response_id
        self._model = model_name
        self._fingerprint = fingerprint
        self._created = int(time.time())
        self._samples = prompts[0].params.n
        self._counter = TokenCounter([each.num_tokens for each in prompts], self._samples)
        self._extension = Extension(request, self._counter)
        self.timeline: Timeline | None = None  # to be told at the end
        self.timelines: Sequence[Timeline] = ()  # of choices that were written here
        self._offsets: dict[int, int] = {}  # choice -> characters shown

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[Completion]:
        """One chunk for each choice that has news."""
        for index, delta in deltas.items():
            choice = self._choice(index, delta)
            usage = self._counter.of_choice(index) if self._request.continuous_usage else UNSET
            yield self.chunk([choice], usage)

    def last(self) -> Iterator[Completion]:
        """The counts, if they are wanted."""
        if (told := self._extension.told()) is not UNSET:
            chunk = self.chunk([], UNSET)
            chunk.sglext = told
            yield chunk
        if self._request.include_usage:
            yield self.chunk([], self._counter.total())

    def whole(self, deltas: dict[int, OutputDelta]) -> Completion:
        """The response that is not streamed."""
        for index, delta in deltas.items():  # the engine scores a prompt once for its n samples
            first = index // self._samples * self._samples
            delta.prompt_logprobs = deltas[first].prompt_logprobs
        kept = likeliest(deltas, self._samples, self._request.n or 1)
        choices = [self._choice(index, deltas[index]) for index in kept]
        for place, choice in enumerate(choices):
            choice.index = place
        for index in deltas.keys() - kept:
            self._counter.add(index, deltas[index])
        whole = self.chunk(choices, self._counter.total())
        whole.sglext = self._extension.told()
        return whole

    def chunk(self, choices: list[CompletionChoice], usage: Usage | UnsetType) -> Completion:
        """One with these, whatever was said."""
        completion = Completion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            system_fingerprint=self._fingerprint,
            usage=usage,
        )
        if self.timeline is not None and choices and choices[0].finish_reason is not None:
            completion.metrics = timing_of(self.timeline)
        return completion

    def _choice(self, index: int, delta: OutputDelta) -> CompletionChoice:
        request, prompt = self._request, self._prompts[index // self._samples]
        if request.only_echo:
            delta = replace(delta, text="", token_ids=[], logprobs=None, stop_reason=None)
        begins = index not in self._offsets
        echo = self._text_of(prompt) if begins and request.echo else ""
        self._offsets.setdefault(index, 0)
        self._counter.add(index, delta)
        self._extension.add(index, delta)
        choice = CompletionChoice(index, echo + delta.text, finish_reason=delta.finish_reason)
        if request.only_echo and delta.finish_reason:
            choice.finish_reason = "length"
        if request.logprobs is not None:
            choice.logprobs = self._logprobs(index, prompt, delta)
        if delta.finish_reason is not None:
            choice.stop_reason = delta.stop_reason
            choice.matched_stop = delta.matched
            if request.return_weight_versions and self.timelines:
                count = self._counter.of_choice(index).completion_tokens
                timeline = self.timelines[index]
                choice.weight_versions = weight_versions(
                    timeline.earlier_weights, timeline.weights, count
                )
        if request.return_token_ids:
            choice.token_ids = delta.token_ids
            choice.prompt_token_ids = prompt.token_ids if begins and not prompt.embeds else UNSET
        if request.return_prompt_text and begins:
            choice.prompt_text = self._text_of(prompt)
        if request.prompt_logprobs is not None:
            choice.prompt_logprobs = prompt_logprobs(delta.prompt_logprobs or [None])
        if request.return_hidden_states:
            choice.hidden_states = last_state(delta)
        if delta.routed_experts and not request.stream:
            choice.routed_experts = as_file(delta.routed_experts)
        return choice

    def _logprobs(self, index: int, prompt: Prompt, delta: OutputDelta) -> CompletionLogprobs:
        positions: list[PositionLogprobs | None] = []
        if self._request.echo:
            positions += delta.prompt_logprobs or []
        num_echoed = len(positions)
        positions += delta.logprobs or []
        first = 0 if prompt.embeds else prompt.token_ids[0]
        shown, self._offsets[index] = completion_logprobs(
            positions,
            self._request.logprobs or 0,
            offset=self._offsets[index],
            as_ids=bool(self._request.return_tokens_as_token_ids),
            named=self._request.logprob_token_ids,
            num_echoed=num_echoed,
            first=(first, self._tokenizer.token_text(first) if self._tokenizer else ""),
        )
        return shown

    def _text_of(self, prompt: Prompt) -> str:
        if prompt.text is not None or prompt.embeds:
            return prompt.text or ""
        skip = prompt.params.skip_special_tokens
        return self._tokenizer.decode(prompt.token_ids, skip) if self._tokenizer else ""
