"""Showing what the engine said as `/v1/chat/completions` does, whole or in chunks."""

import time
from collections.abc import Iterator, Sequence

from msgspec import UNSET, UnsetType

from engine.outputs import OutputDelta
from serve.generation.conversation import Conversation
from serve.generation.logprobs import chat_logprobs, prompt_logprobs
from serve.generation.provenance import WeightVersionSpan, weight_versions
from serve.generation.routed_experts import as_file
from serve.generation.sglext import Extension
from serve.generation.timing import TimingMetrics, timing_of
from serve.generation.usage import TokenCounter
from serve.native.generate_view import GenerateView
from serve.native.hidden_states import last_state
from serve.operations.metrics import Timeline
from serve.protocol.chat import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    Delta,
)
from serve.protocol.decoding import Usage
from serve.reply.shown import Reply


class ChatView:
    """One response; its choices are the n answers to one conversation."""

    def __init__(
        self,
        talk: Conversation,
        response_id: str,
        model_name: str,
        *,
        fingerprint: str,
        role: str = "assistant",
        meta: GenerateView | None = None,
    ) -> None:
        self._request = talk.request
        self._role = talk.request.role_of_answer(role)
        self._prompt = prompt = talk.prompt
        self._id = response_id
        self._model = model_name
        self._fingerprint = fingerprint
        self._meta = meta  # of choices that show it
        self._created = int(time.time())
        self._counter = TokenCounter(
            [prompt.num_tokens], prompt.params.n, talk.thoughts,
            predicted=talk.request.prediction is not None,
        )  # fmt: skip
        given = talk.request.return_input_ids_in_sglext
        self._extension = Extension(
            talk.request, self._counter, input_ids=prompt.token_ids if given else None,
            output_ids=bool(talk.request.return_output_ids_in_sglext),
        )  # fmt: skip
        self._begun: set[int] = set()
        self.timeline: Timeline | None = None  # to be told at the end
        self.timelines: Sequence[Timeline] = ()  # of choices that were written here
        self._replies = [Reply(talk.rules, prompt.text or "") for _ in range(prompt.params.n)]

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[ChatChunk]:
        """A chunk with the role when a choice begins, then those with its news."""
        for index, delta in deltas.items():
            if index not in self._begun:
                yield self._first(index)
                self._begun.add(index)
            yield from self._pieces(index, delta)

    def last(self) -> Iterator[ChatChunk]:
        """The counts, if they are wanted."""
        if (told := self._extension.told()) is not UNSET:
            chunk = self.chunk([], UNSET)
            chunk.sglext = told
            yield chunk
        if self._request.include_usage:
            yield self.chunk([], self._counter.total())

    def whole(self, deltas: dict[int, OutputDelta]) -> ChatCompletion:
        """The response that is not streamed."""
        choices = [self._choice(index, deltas[index]) for index in sorted(deltas)]
        if self._meta is not None:
            for choice, told in zip(choices, self._meta.whole(deltas), strict=True):
                choice.meta_info = told.meta_info
        request = self._request
        scores = prompt_logprobs(deltas[0].prompt_logprobs or [None])
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            usage=self._counter.total(),
            system_fingerprint=self._fingerprint,
            metrics=self._metrics,
            prompt_token_ids=self._prompt.token_ids if request.return_token_ids else UNSET,
            prompt_text=self._prompt.text if request.return_prompt_text else UNSET,
            prompt_logprobs=UNSET if request.prompt_logprobs is None else scores,
            sglext=self._extension.told(),
        )

    def _first(self, index: int) -> ChatChunk:
        role, begins = self._role, not self._begun
        chunk = self.chunk(
            [ChunkChoice(index, Delta(role=role, content=self._request.echoed(role)))],
            self._counter.of_choice(index) if self._request.continuous_usage else UNSET,
        )
        if self._request.return_token_ids and begins:
            chunk.prompt_token_ids = self._prompt.token_ids
        if self._request.return_prompt_text and begins:
            chunk.prompt_text = self._prompt.text
        return chunk

    def _pieces(self, index: int, delta: OutputDelta) -> Iterator[ChatChunk]:
        """What a delta adds: one chunk, or one for each part of a reply that has parts."""
        self._counter.add(index, delta)
        self._extension.add(index, delta)
        choices = [ChunkChoice(index, each) for each in self._replies[index].deltas(delta)]
        if not choices and (delta.finish_reason or self._has_details):
            choices.append(ChunkChoice(index, Delta()))
        if not choices:
            return
        choices[0].logprobs = self._logprobs(delta)
        if self._request.return_token_ids:
            choices[0].token_ids = delta.token_ids
        if delta.finish_reason is not None:
            choices[-1].finish_reason = self._replies[index].finish_reason(delta)
            choices[-1].stop_reason = delta.stop_reason
            choices[-1].matched_stop = delta.matched
            choices[-1].weight_versions = self._weights(index)
        for choice in choices:
            usage = self._counter.of_choice(index) if self._request.continuous_usage else UNSET
            chunk = self.chunk([choice], usage)
            if choice.finish_reason is not None:
                chunk.metrics = self._metrics
            yield chunk

    @property
    def _metrics(self) -> TimingMetrics | UnsetType:
        return UNSET if self.timeline is None else timing_of(self.timeline)

    @property
    def _has_details(self) -> bool:
        """Whether chunks show tokens even where no text is added."""
        return bool(self._request.logprobs or self._request.return_token_ids)

    def _choice(self, index: int, delta: OutputDelta) -> ChatChoice:
        self._counter.add(index, delta)
        self._extension.add(index, delta)
        reply = self._replies[index]
        message = reply.message(delta, self._role, self._request.echoed(self._role))
        return ChatChoice(
            index,
            message,
            logprobs=self._logprobs(delta),
            finish_reason=reply.finish_reason(delta),
            stop_reason=delta.stop_reason,
            matched_stop=delta.matched,
            token_ids=delta.token_ids if self._request.return_token_ids else UNSET,
            prompt_token_ids=(
                self._prompt.token_ids if self._request.return_prompt_token_ids else UNSET
            ),
            hidden_states=last_state(delta) if self._request.return_hidden_states else UNSET,
            routed_experts=as_file(delta.routed_experts) if delta.routed_experts else UNSET,
            weight_versions=self._weights(index),
        )

    def _weights(self, index: int) -> list[WeightVersionSpan] | UnsetType:
        """Whose a choice is that has ended."""
        if not self._request.return_weight_versions:
            return UNSET
        if not self.timelines:
            return UNSET
        count, timeline = self._counter.of_choice(index).completion_tokens, self.timelines[index]
        return weight_versions(timeline.earlier_weights, timeline.weights, count)

    def _logprobs(self, delta: OutputDelta) -> ChatLogprobs | None:
        if not self._request.logprobs:
            return None
        flat = self._request.return_flat_raw_output_top_logprobs
        return chat_logprobs(
            delta.logprobs or [],
            0 if flat else self._request.top_logprobs or 0,
            as_ids=bool(self._request.return_tokens_as_token_ids),
            named=self._request.logprob_token_ids,
        )

    def chunk(self, choices: list[ChunkChoice], usage: Usage | UnsetType) -> ChatChunk:
        """One with these, whatever was said."""
        return ChatChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=choices,
            system_fingerprint=self._fingerprint,
            usage=usage,
        )
