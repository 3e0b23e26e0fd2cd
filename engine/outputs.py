"""What a caller gets back: whole outputs shaped as vLLM's `RequestOutput` and `CompletionOutput`,
and the deltas that add up to them.

Owns these shapes and the adding up; how deltas come about is `output_processor`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self, overload

import msgspec
import numpy as np

from engine.messages import FinishReason, TokenLogprobs
from engine.tokenizers.tokenizer import Tokenizer
from engine.vectors.routed_rows import Experts

_PREVIEW = 60  # characters of a text in a __repr__


@dataclass(slots=True)
class Logprob:
    """One token's log-probability; `rank` 1 is the likeliest.

    `decoded_token` has U+FFFD where the token is part of a character; `token_bytes` has what is
    really there.
    """

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None
    token_bytes: bytes | None = None


PositionLogprobs = dict[int, Logprob]
"""Token id -> its logprob: the chosen token first, then the likeliest others in order."""


class PromptScores(Sequence[PositionLogprobs | None]):
    """Log-probabilities of a prompt's tokens, in order; None for tokens that are not scored.

    A position becomes objects when it is read, and each time: of a long prompt that takes longer
    than whoever only passes them on has. 8,192 positions with 21 tokens each: 159 ms.
    """

    def __init__(
        self,
        entries: list[TokenLogprobs | None],
        read: Callable[[TokenLogprobs], PositionLogprobs],
    ) -> None:
        self._entries = entries
        self._read = read

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, place: int) -> PositionLogprobs | None: ...
    @overload
    def __getitem__(self, place: slice) -> list[PositionLogprobs | None]: ...
    def __getitem__(
        self, place: int | slice
    ) -> PositionLogprobs | list[PositionLogprobs | None] | None:
        if isinstance(place, slice):
            return [self._position(entry) for entry in self._entries[place]]
        return self._position(self._entries[place])

    def __iadd__(self, later: "PromptScores") -> Self:
        """And those of the tokens after them."""
        self._entries += later._entries
        return self

    def _position(self, entry: TokenLogprobs | None) -> PositionLogprobs | None:
        return None if entry is None else self._read(entry)


class OutputDelta(msgspec.Struct, kw_only=True):
    """What one step added to one of the continuations of a request.

    `text` may lag behind `token_ids`: a character may be unfinished, or become a stop string.
    """

    request_id: str
    index: int  # which continuation, in [0, n)
    text: str = ""
    token_ids: list[int] = []
    logprobs: list[PositionLogprobs] | None = None  # one for each of token_ids
    prompt_logprobs: PromptScores | None = None  # from token 0 on, piecewise
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    num_cached_tokens: int = 0
    num_external_tokens: int = 0  # of those cached, what was in the host's memory
    num_preemptions: int = 0  # so far
    num_drafted: int = 0  # tokens that were guessed to be new ones
    accepted: list[int] | None = None  # of these, those that are, of each step that judged some
    queue_seconds: float | None = None  # with the first tokens: from arrival to a row
    hidden_states: list[bytes] | None = None  # of more tokens, in order, each float32 [D]
    routed_experts: list[Experts] | None = None  # of more tokens, in order
    alignment: bytes = b""  # for an AlignRequest: float32 [tokens, positions], little-endian
    error: str | None = None  # with finish_reason "error": a sentence for the client
    error_param: str | None = None
    internal: bool = False  # the error is a mistake of ours, and not the request's

    @property
    def matched(self) -> int | str | None:
        """What a text that stopped was stopped by; end of text, or of a grammar, is its last token.

        That is SGLang's `matched_stop`; vLLM's `stop_reason` has nothing there.
        """
        if self.stop_reason is not None or self.finish_reason != "stop":
            return self.stop_reason
        return self.token_ids[-1] if self.token_ids else None


@dataclass(slots=True)
class ProcessedStep:
    """One step's deltas, and the sequences that the engine shall forget."""

    outputs: list[OutputDelta] = field(default_factory=list)
    aborts: list[int] = field(default_factory=list)  # engine ids


@dataclass(slots=True, repr=False)
class CompletionOutput:
    """One of the n continuations of a prompt."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[PositionLogprobs] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None  # the stop token id or stop string that ended it
    error: str | None = None
    error_param: str | None = None
    # once it is finished: the experts [tokens - 1, L, k] that prompt and answer took
    routed_experts: Experts | None = field(default=None, compare=False)
    _routed: list[Experts] = field(default_factory=list, compare=False)

    @property
    def finished(self) -> bool:
        return self.finish_reason is not None

    def accumulate(self, delta: OutputDelta) -> None:
        """Add what a step added."""
        text, self.text = self.text, ""  # only a string that nobody else holds grows in place
        text += delta.text
        self.text = text
        self.token_ids += delta.token_ids
        self.finish_reason = delta.finish_reason
        self.stop_reason = delta.stop_reason
        self.error, self.error_param = delta.error, delta.error_param
        if delta.logprobs is not None:
            self._accumulate_logprobs(delta.token_ids, delta.logprobs)
        if delta.routed_experts is not None:
            self._routed += delta.routed_experts
        if self.finished and self._routed:
            self.routed_experts = np.concatenate(self._routed)

    def _accumulate_logprobs(self, ids: list[int], logprobs: list[PositionLogprobs]) -> None:
        if self.logprobs is None:
            self.logprobs = []
        self.logprobs += logprobs
        chosen = (position[token_id] for token_id, position in zip(ids, logprobs, strict=True))
        self.cumulative_logprob = sum(
            (token.logprob for token in chosen), self.cumulative_logprob or 0.0
        )

    def __repr__(self) -> str:
        end = self.finish_reason or "running"
        reason = "" if self.stop_reason is None else f" at {self.stop_reason!r}"
        tokens = len(self.token_ids)
        return (
            f"CompletionOutput({self.index}: {_preview(self.text)}, {tokens} tokens, {end}{reason})"
        )


@dataclass(slots=True, repr=False)
class RequestOutput:
    """A prompt and its continuations."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[PositionLogprobs | None] | None = None  # None for the first token
    num_cached_tokens: int = 0
    encoder_prompt: str | None = None  # of models with an encoder; `prompt` is the decoder's then
    encoder_prompt_token_ids: list[int] | None = None

    @classmethod
    def begin(
        cls, request_id: str, prompt: str | None, prompt_token_ids: list[int], n: int
    ) -> "RequestOutput":
        """The output of a request before its first delta."""
        return cls(request_id, prompt, prompt_token_ids, [CompletionOutput(i) for i in range(n)])

    @property
    def finished(self) -> bool:
        return all(output.finished for output in self.outputs)

    def accumulate(self, delta: OutputDelta) -> None:
        """Add what a step added to one of the continuations."""
        self.outputs[delta.index].accumulate(delta)
        self.num_cached_tokens = max(self.num_cached_tokens, delta.num_cached_tokens)
        if delta.prompt_logprobs is not None:
            self.prompt_logprobs = [*(self.prompt_logprobs or ()), *delta.prompt_logprobs]

    def __repr__(self) -> str:
        prompt = "no text" if self.prompt is None else _preview(self.prompt)
        outputs = "".join(f"\n  {output!r}" for output in self.outputs)
        tokens = len(self.prompt_token_ids)
        return f"RequestOutput({self.request_id}: {prompt}, {tokens} tokens){outputs}"


@dataclass(slots=True)
class BeamSearchSequence:
    """One sequence that a beam search found; `tokens` and `text` begin with the prompt."""

    tokens: list[int]
    logprobs: list[PositionLogprobs]  # of what was generated
    cum_logprob: float  # not divided by any length
    text: str | None  # without special tokens; None where the model has no tokenizer
    finish_reason: FinishReason
    stop_reason: int | str | None  # the end of text that ended it


@dataclass(slots=True)
class BeamSearchOutput:
    """What a beam search found for one prompt, the best first."""

    sequences: list[BeamSearchSequence]

    @classmethod
    def of(cls, output: RequestOutput, tokenizer: Tokenizer | None) -> "BeamSearchOutput":
        """From a finished request's outputs."""
        sequences = []
        for found in output.outputs:
            tokens = output.prompt_token_ids + found.token_ids
            sequences.append(
                BeamSearchSequence(
                    tokens=tokens,
                    logprobs=found.logprobs or [],
                    cum_logprob=found.cumulative_logprob or 0.0,
                    text=tokenizer.decode(tokens) if tokenizer else None,
                    finish_reason=found.finish_reason or "length",
                    stop_reason=found.stop_reason,
                )
            )
        return cls(sequences)


def _preview(text: str) -> str:
    return repr(text if len(text) <= _PREVIEW else text[: _PREVIEW - 3] + "...")
