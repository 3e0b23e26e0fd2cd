"""Requests into the engine's messages, and the engine's reports into outputs.

Owns the ids under which the engine knows sequences, the n children of a request, and where
text, stop strings and logprobs of each stand. Used in process by `LLM` and by the HTTP front;
knows neither the engine's insides nor HTTP.

    request "cmpl-7", n = 2   ->  AddRequest 12, AddRequest 13          (add)
    StepReport {12: [318], 13: [995]}  ->  OutputDelta "cmpl-7"[0] " is", "cmpl-7"[1] " world"
"""

import logging
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, Literal

from msgspec.structs import force_setattr

from engine.adapters.request import LoRARequest
from engine.beams.params import BeamSearchParams
from engine.encoders.align_request import AlignRequest
from engine.errors import RequestError
from engine.messages import (
    AddBeams,
    AddRequest,
    NewRequest,
    RequestDelta,
    StepReport,
    TokenLogprobs,
)
from engine.outputs import Logprob, OutputDelta, PositionLogprobs, ProcessedStep, PromptScores
from engine.reasoning.thinking import ThinkingBudget
from engine.sampling.params import MAX_BAD_WORD_TOKENS, SamplingParams
from engine.stopping.repetition import Repetition
from engine.stopping.stop import Either, Found, Stops, StopStrings, StopWatcher
from engine.stopping.stop_regex import StopRegexes
from engine.tokenizers.detokenizer import Detokenizer
from engine.tokenizers.tokenizer import Tokenizer
from engine.vectors.last_state import LastState
from engine.vectors.prompt_embeds import check_options
from engine.vectors.routed_rows import RoutedRows

__all__ = ["OutputDelta", "OutputProcessor", "ProcessedStep"]

logger = logging.getLogger(__name__)
HiddenStates = Literal["none", "last", "all"]
_REMEMBERED = 64  # sets of stops, and of bad words
_LOWEST_SEED, _HIGHEST_SEED = -(2**63), 2**64 - 1


@dataclass(slots=True)
class _Child:
    """One continuation: what it may do, and where its text stands."""

    request_id: str
    index: int
    params: SamplingParams
    detokenizer: Detokenizer | None  # None when the caller wants ids only
    watcher: StopWatcher | None  # None without stop strings and regexes
    repetition: Repetition | None = None
    num_tokens: int = 0
    last_state: LastState | None = None
    routed: RoutedRows | None = None
    num_unscored: int = 0  # leading tokens of the prompt, asked for, that have no log-probability

    def grow(self, token_id: int) -> str | Found:
        """The text that one more token completes; `Found` when a stop string ends it."""
        self.num_tokens += 1
        text = self.detokenizer.append((token_id,)) if self.detokenizer else ""
        return self._watched(text)

    def repeats(self, token_id: int) -> bool:
        """Whether the answer is to end with this token, for it goes round in circles."""
        found = self.repetition is not None and self.repetition.sees(token_id)
        return found and self.num_tokens >= self.params.min_tokens

    def end(self) -> str | Found:
        """The text that was held back for tokens that will not come."""
        last = self._watched(self.detokenizer.flush() if self.detokenizer else "")
        if isinstance(last, Found) or self.watcher is None:
            return last
        return last + self.watcher.flush()

    def _watched(self, text: str) -> str | Found:
        if self.watcher is None:
            return text
        return self.watcher.feed(text, may_stop=self.num_tokens > self.params.min_tokens)


class OutputProcessor:
    """The requests in flight and their texts; `tokenizer` None is ids in, ids out."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._ids = count()
        self._children: dict[int, _Child] = {}  # by engine id, those that are not finished
        self._requests: dict[str, set[int]] = {}  # engine ids of their unfinished children
        # Prompts that come together share their options, and requests often repeat them.
        self._stops = lru_cache(_REMEMBERED)(_stops)
        self._bad_words = lru_cache(_REMEMBERED)(self._bad_word_ids)

    def add(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        cache_salt: str = "",
        grammar: str = "",
        beams: BeamSearchParams | None = None,
        thinking: ThinkingBudget | None = None,
        encoder_token_ids: list[int] | None = None,
        encoder_features: bytes = b"",
        times_from: int = 0,
        align: AlignRequest | None = None,
        prompt_embeds: bytes = b"",
        hidden: HiddenStates = "none",
        routed: RoutedRows | None = None,
        prediction_token_ids: Sequence[int] = (),
        lora: LoRARequest | None = None,
    ) -> Sequence[NewRequest]:
        """Messages that make the engine write the n continuations of a prompt.

        `grammar` is what `engine.grammar.source` made of the params' structured outputs.
        With `beams` they are the n best that a search finds; of `params` what concerns texts
        counts then, and `logprobs`. `encoder_token_ids` are for the encoder of a model that has
        one, whose decoder goes on with the prompt; ids from `times_from` on are times, kept in
        order. `prompt_embeds` are what the prompt is, if it is no tokens; its ids say how many.
        `hidden`: which states are wanted: of all tokens, or what the last was chosen from.
        `routed`: how experts are told, if they are. `prediction_token_ids`: a guess of the answer.

        `request_id` names the request in outputs; the engine never sees it. Child i of a seeded
        request has seed + i. Raises `RequestError` for an id in use, and options without a text.
        """
        if request_id in self._requests:
            raise RequestError(f"Request id {request_id[:80]!r} is in use.", "request_id")
        self._check_text_options(params)
        _check_starts(params, len(prompt_token_ids), routed)
        if prompt_embeds:
            check_options(params, beams=beams is not None)
        if (params.structured_outputs is None) != (not grammar):
            raise ValueError("structured outputs come with their grammar")
        bad_word_ids = self._bad_words(tuple(params.bad_words or ()))
        known = [] if prompt_embeds else prompt_token_ids
        engine_ids = self._add_children(request_id, known, params, hidden, routed)
        shared: dict[str, Any] = {
            "prompt_token_ids": prompt_token_ids, "priority": priority, "cache_salt": cache_salt,
            "encoder_token_ids": encoder_token_ids or [], "lora": lora,
        }  # fmt: skip
        if beams is not None:
            scores = params.logprobs
            return [AddBeams(request_ids=engine_ids, params=beams, num_logprobs=scores, **shared)]
        shared |= {
            "encoder_features": encoder_features, "align": align, "bad_word_ids": bad_word_ids,
            "grammar": grammar, "thinking": thinking, "times_from": times_from,
            "hidden_from": _first_hidden(hidden, len(prompt_token_ids)),
            "routed_from": params.routed_experts_prompt_start if routed else None,
            "prediction_token_ids": [*prediction_token_ids],
        }  # fmt: skip
        return _samples(engine_ids, params, prompt_embeds, shared)

    def process(self, report: StepReport) -> ProcessedStep:
        """Outputs of one step; deltas of sequences that ended or were aborted are ignored."""
        step = ProcessedStep()
        for delta in report.deltas:
            child = self._children.get(delta.request_id)
            if child is None:
                continue
            output = self._advanced(child, delta)
            step.outputs.append(output)
            if output.finish_reason is not None:
                self._forget(delta.request_id, child.request_id)
                if delta.finish_reason is None:
                    step.aborts.append(delta.request_id)
        return step

    def abort(self, request_id: str) -> list[int]:
        """Forget a request; the engine ids of what was running of it, to be aborted there."""
        engine_ids = sorted(self._requests.pop(request_id, ()))
        for engine_id in engine_ids:
            del self._children[engine_id]
        return engine_ids

    def abort_all(self) -> tuple[list[int], list[OutputDelta]]:
        """Forget every request: the engine ids of what was running, and the end of each."""
        engine_ids = sorted(self._children)
        ends = [
            OutputDelta(request_id=child.request_id, index=child.index, finish_reason="abort")
            for child in self._children.values()
        ]
        self._children.clear()
        self._requests.clear()
        return engine_ids, ends

    @property
    def num_unfinished(self) -> int:
        """Requests that have not ended, in [0, inf)."""
        return len(self._requests)

    def _add_children(
        self,
        request_id: str,
        prompt_token_ids: list[int],
        params: SamplingParams,
        hidden: HiddenStates,
        routed: RoutedRows | None,
    ) -> list[int]:
        """Continuations of a prompt; the ids under which the engine is to know them."""
        stops = self._stops(tuple(params.stop_strings), tuple(params.stop_regexes))
        engine_ids = [next(self._ids) for _ in range(params.n)]
        for index, engine_id in enumerate(engine_ids):
            child = self._child(request_id, index, prompt_token_ids, params, stops)
            child.last_state = LastState() if hidden == "last" else None
            child.routed = routed
            self._children[engine_id] = child
        self._requests[request_id] = set(engine_ids)
        return engine_ids

    def _check_text_options(self, params: SamplingParams) -> None:
        for name in ("stop", "stop_regex"):
            if getattr(params, name) and not (self._tokenizer and params.detokenize):
                sentence = f"{name} needs text: a tokenizer, and detokenize not false."
                raise RequestError(sentence, name)
        if params.bad_words and not self._tokenizer:
            raise RequestError("bad_words needs a model with a tokenizer.", "bad_words")

    def _bad_word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Both spellings of each word, at the start of a text and after a space."""
        found: list[list[int]] = []
        for word in words:
            bare = word.lstrip() or word
            for text in (bare, " " + bare):
                ids = self._encode_word(text)
                if ids not in found:
                    found.append(ids)
        return found

    def _encode_word(self, word: str) -> list[int]:
        ids = self._tokenizer.encode(word, add_special_tokens=False) if self._tokenizer else []
        if not ids:
            raise RequestError(f"bad_words holds {word[:40]!r}, which is no token.", "bad_words")
        if len(ids) > MAX_BAD_WORD_TOKENS:
            raise RequestError(
                f"bad_words holds {word[:40]!r}, which is {len(ids)} tokens; "
                f"at most {MAX_BAD_WORD_TOKENS} can be watched for.",
                "bad_words",
            )
        return ids

    def _child(
        self,
        request_id: str,
        index: int,
        prompt_token_ids: list[int],
        params: SamplingParams,
        stops: Stops | None,
    ) -> _Child:
        detokenizer = None
        if self._tokenizer and params.detokenize:
            detokenizer = self._tokenizer.detokenizer(
                prompt_token_ids,
                skip_special_tokens=params.skip_special_tokens,
                spaces_between_special_tokens=params.spaces_between_special_tokens,
            )
        watcher = None
        if stops is not None:
            watcher = StopWatcher(stops, include_stop=params.include_stop_str_in_output)
        unscored = 0
        if index == 0 and params.prompt_logprobs is not None:  # scored once for all n
            unscored = max(1, params.prompt_logprobs_start)
        child = _Child(request_id, index, params, detokenizer, watcher, num_unscored=unscored)
        wanted = params.repetition_detection
        if wanted is not None and wanted.max_pattern_size:
            child.repetition = Repetition(wanted)
        return child

    def _advanced(self, child: _Child, delta: RequestDelta) -> OutputDelta:
        """What the delta adds. One text's failure, whatever it is, is that one's alone."""
        try:
            return self._advance(child, delta)
        except Exception:
            logger.exception("an answer could not be read")
            return OutputDelta(
                request_id=child.request_id, index=child.index, finish_reason="error",
                error="The server failed at this answer.", internal=True,
            )  # fmt: skip

    def _advance(self, child: _Child, delta: RequestDelta) -> OutputDelta:
        output = OutputDelta(
            request_id=child.request_id,
            index=child.index,
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_token_id,
            num_cached_tokens=delta.num_cached_tokens,
            queue_seconds=delta.queue_seconds,
            error=delta.error,
            error_param=delta.error_param,
            internal=delta.internal,
        )
        if delta.alignment:
            output.alignment = delta.alignment
        if delta.num_external_tokens or delta.num_preemptions:
            output.num_external_tokens = delta.num_external_tokens
            output.num_preemptions = delta.num_preemptions
        if delta.num_drafted:
            output.num_drafted, output.accepted = delta.num_drafted, [delta.num_accepted]
        if delta.finish_reason != "error":
            self._write(child, delta, output)
        if child.last_state is not None:
            last = child.last_state.grow(delta.hidden_states, len(output.token_ids))
            output.hidden_states = last if output.finish_reason else None
        elif delta.hidden_states:
            output.hidden_states = delta.hidden_states
        if child.routed is not None and delta.routed_experts:
            dropped = len(delta.new_token_ids) - len(output.token_ids)  # behind the answer's end
            experts = child.routed.read(delta.routed_experts)
            output.routed_experts = [experts[: len(experts) - dropped]]
        if delta.logprobs is not None:
            kept = delta.logprobs[: len(output.token_ids)]
            ranked = child.params.logprob_token_ids is None
            output.logprobs = [self._position(entry, ranked=ranked) for entry in kept]
        if child.num_unscored or delta.prompt_logprobs is not None:
            self._add_prompt_logprobs(child, delta, output)
        return output

    def _add_prompt_logprobs(self, child: _Child, delta: RequestDelta, output: OutputDelta) -> None:
        """None for tokens that are not scored: the first, which has nothing before it, and others
        that nobody asked for."""
        entries: list[TokenLogprobs | None] = [None] * child.num_unscored
        child.num_unscored = 0
        entries += delta.prompt_logprobs or ()
        output.prompt_logprobs = PromptScores(entries, self._position)

    def _write(self, child: _Child, delta: RequestDelta, output: OutputDelta) -> None:
        """Add the tokens up to one that completes a stop string or a repetition, and their text.

        The token that made the engine stop, EOS or one of `stop_token_ids`, is in `token_ids` but
        its text is not, unless the caller wants to see what stopped it.
        """
        texts: list[str] = []
        ended = delta.finish_reason == "stop" and not delta.complete
        stop_token = ended and not child.params.include_stop_str_in_output
        for place, token_id in enumerate(delta.new_token_ids, 1):
            last = place == len(delta.new_token_ids)
            output.token_ids.append(token_id)
            if stop_token and last:
                break
            if _ended(child.grow(token_id), texts, output):
                break
            if child.repeats(token_id) and not (last and delta.finish_reason):
                output.finish_reason, output.stop_reason = "repetition", None
                break
        if output.finish_reason is not None and not isinstance(output.stop_reason, str):
            _ended(child.end(), texts, output)
        if output.finish_reason == "repetition":
            output.stop_reason = "repetition_detected"
        output.text = "".join(texts)

    def _position(self, entry: TokenLogprobs, *, ranked: bool = True) -> PositionLogprobs:
        """{chosen: ..., likeliest: ..., second: ...}; the chosen one is not listed twice. Of others
        that are not `ranked`, named by the request, the rank is not known."""
        others = len(entry.token_ids) - 1
        ranks = [entry.rank, *(range(1, 1 + others) if ranked else [None] * others)]
        position: PositionLogprobs = {}
        for token_id, logprob, rank in zip(entry.token_ids, entry.logprobs, ranks, strict=True):
            data = self._tokenizer.token_bytes(token_id) if self._tokenizer else None
            text = None if data is None else data.decode("utf-8", "replace")
            position.setdefault(token_id, Logprob(logprob, rank, text, data))
        return position

    def _forget(self, engine_id: int, request_id: str) -> None:
        del self._children[engine_id]
        self._requests[request_id].discard(engine_id)
        if not self._requests[request_id]:
            del self._requests[request_id]


def _samples(
    engine_ids: Sequence[int], params: SamplingParams, embeds: bytes, shared: dict[str, Any]
) -> list[NewRequest]:
    """One request for each; what is large is in the first, and the others name it."""
    first = engine_ids[0] if embeds else None
    return [
        AddRequest(
            request_id=engine_id,
            params=_child_params(params, index),
            prompt_embeds=b"" if index else embeds,
            same_embeds_as=first if index else None,
            **shared,
        )
        for index, engine_id in enumerate(engine_ids)
    ]


def _first_hidden(wanted: HiddenStates, prompt_tokens: int) -> int | None:
    """The first token whose hidden states the engine is to tell."""
    return {"none": None, "last": prompt_tokens - 1, "all": 0}[wanted]


def _check_starts(params: SamplingParams, prompt_tokens: int, routed: RoutedRows | None) -> None:
    for name in ("prompt_logprobs_start", "routed_experts_prompt_start"):
        start = getattr(params, name)
        if start > prompt_tokens:
            raise RequestError(
                f"{name} {start} is beyond the end of the prompt, which has {prompt_tokens} "
                "tokens.",
                name,
            )
    if params.routed_experts_prompt_start and routed is None:
        raise RequestError(
            "routed_experts_prompt_start needs the setting --enable-return-routed-experts.",
            "routed_experts_prompt_start",
        )


def _stops(strings: tuple[str, ...], regexes: tuple[str, ...]) -> Stops | None:
    found = StopStrings(strings) if strings else None
    if not regexes:
        return found
    return StopRegexes(regexes) if found is None else Either(found, StopRegexes(regexes))


def _child_params(params: SamplingParams, index: int) -> SamplingParams:
    """What the engine needs to know for child `index`; texts stay here."""
    seed = params.seed
    if seed is not None:
        seed = _LOWEST_SEED + (seed + index - _LOWEST_SEED) % (_HIGHEST_SEED - _LOWEST_SEED + 1)
    prompt_logprobs = params.prompt_logprobs if index == 0 else None  # the same for all
    child = copy(params)  # not `replace`, which would validate every list of every child again
    changes = {
        "n": 1, "seed": seed, "stop": None, "stop_regex": None,
        "structured_outputs": None, "repetition_detection": None, "thinking_token_budget": None,
        "prompt_logprobs": prompt_logprobs,
    }  # fmt: skip
    for name, value in changes.items():
        force_setattr(child, name, value)
    return child


def _ended(grown: str | Found, texts: list[str], output: OutputDelta) -> bool:
    if isinstance(grown, str):
        texts.append(grown)
        return False
    texts.append(grown.text)
    output.finish_reason, output.stop_reason = "stop", grown.stop
    return True
