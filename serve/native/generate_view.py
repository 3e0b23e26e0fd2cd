"""Showing what the engine said as SGLang's `/generate` does; answers are cumulative when streamed.

A log-probability is listed as (value, id, text), the text only where it was asked for. The first
token of a prompt that is scored has none, wherever the scoring begins.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from engine.messages import EngineStats
from engine.outputs import Logprob, OutputDelta, PositionLogprobs
from engine.tokenizers.tokenizer import Tokenizer
from serve.engine_client import Prompt
from serve.generation.drafts import drafts_told
from serve.generation.routed_experts import as_numbers
from serve.generation.streams import absorb
from serve.native.flat_logprobs import Flat, Listed
from serve.native.hidden_states import all_states
from serve.native.meta_info import MetaInfo
from serve.native.sampling_mask import LogprobsMode, masks_told


@dataclass(frozen=True, slots=True)
class Scored:
    """Which log-probabilities are shown beside those of the tokens themselves.

    `start`: the first token of the prompt that is scored, -1 for none; `top`: how many of the
    likeliest; `named`: of which tokens instead; `flat`: whether the likeliest are.
    """

    start: int
    top: int
    named: Sequence[int]
    texts: bool
    flat: Flat


class Generated(Struct):
    """One answer, or what there is of it when streamed; `index` tells several apart then."""

    text: str
    output_ids: list[int]
    meta_info: MetaInfo
    index: int | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET


class GenerateView:
    """Answers so far; answer c is to prompt c // n."""

    def __init__(
        self,
        prompts: Sequence[Prompt],
        name: str,
        scored: Scored | None,
        tokenizer: Tokenizer | None,
        *,
        indexed: bool,
        stats: Callable[[], EngineStats],
        with_prompts: bool = False,
        masks: LogprobsMode | None = None,
    ) -> None:
        """`masks`: whether it tells what tokens were drawn among, and how likely which were."""
        self._prompts = prompts
        self._samples = prompts[0].params.n
        self._name = name
        self._scored = scored
        self._tokenizer = tokenizer
        self._indexed = indexed
        self._stats = stats
        self._with_prompts = with_prompts
        self._masks: LogprobsMode | None = masks
        self._so_far: dict[int, OutputDelta] = {}
        self._written: dict[int, tuple[int, dict[str, Raw]]] = {}  # scores of so much of a prompt

    def of(self, deltas: dict[int, OutputDelta]) -> Iterator[Generated]:
        """Each answer that has news, up to now."""
        for index, delta in deltas.items():
            if index in self._so_far:
                absorb(self._so_far[index], delta)
            else:
                self._so_far[index] = delta
        for index in deltas:
            answer = self._answer(index)
            answer.index = index if self._indexed else UNSET
            yield answer

    def last(self) -> Iterator[Generated]:
        """Nothing more."""
        return iter(())

    def whole(self, deltas: dict[int, OutputDelta]) -> list[Generated]:
        """All answers, in the order of their prompts."""
        self._so_far = deltas
        return [self._answer(index) for index in sorted(deltas)]

    def _answer(self, index: int) -> Generated:
        prompt, delta = self._prompts[index // self._samples], self._so_far[index]
        info = MetaInfo(
            id=self._name,
            finish_reason=_finish_reason(delta, prompt),
            prompt_tokens=prompt.num_tokens,
            completion_tokens=len(delta.token_ids),
            cached_tokens=delta.num_cached_tokens,
            weight_version=self._stats().weight_version,
        )
        if self._scored is not None:
            self._score(info, self._scored, delta.logprobs or [])
            if self._scored.start >= 0:
                self._score_prompt(info, self._scored, index // self._samples)
        if self._masks is not None:
            drawn = prompt.params.draws
            _put(info, masks_told(delta.logprobs or [], self._masks, drawn=drawn))
        if prompt.hidden == "all":
            info.hidden_states = all_states(delta, prompt.num_tokens)
        if delta.routed_experts and delta.finish_reason is not None:
            info.routed_experts = as_numbers(delta.routed_experts)
        if (drafts := drafts_told(delta.num_drafted, delta.accepted or [])) is not None:
            _put(info, msgspec.structs.asdict(drafts))
        ids = prompt.token_ids if self._with_prompts else UNSET
        return Generated(delta.text, delta.token_ids, info, prompt_token_ids=ids)

    def _score(self, info: MetaInfo, scored: Scored, positions: Sequence[PositionLogprobs]) -> None:
        info.output_token_logprobs = [self._chosen(each) for each in positions]
        info.output_token_logprobs_length = len(positions)
        likeliest = [self._likeliest(each) for each in positions] if scored.top else []
        if scored.top and scored.flat.output:
            _put(info, scored.flat.written("output", likeliest, scored.top, 0))
        elif scored.top:
            info.output_top_logprobs = likeliest
        if scored.named:
            info.output_token_ids_logprobs = [
                [self._listed(token, each[token]) for token in scored.named] for each in positions
            ]

    def _score_prompt(self, info: MetaInfo, scored: Scored, place: int) -> None:
        """From the scores that the first answer to a prompt came with; written once, for each
        event of a stream repeats them."""
        found = self._so_far.get(place * self._samples)
        positions: Sequence[PositionLogprobs | None] = ()
        if found is not None and found.prompt_logprobs:
            positions = found.prompt_logprobs
        count, written = self._written.get(place, (-1, {}))
        if count != len(positions):
            scores = self._prompt_scores(scored, place, positions)
            written = {name: Raw(msgspec.json.encode(each)) for name, each in scores.items()}
            self._written[place] = len(positions), written
        _put(info, written)

    def _prompt_scores(
        self, scored: Scored, place: int, positions: Sequence[PositionLogprobs | None]
    ) -> dict[str, Any]:
        """The fields that say them."""
        later = [each for each in positions[scored.start + 1 :] if each is not None]
        first = self._prompts[place].token_ids[scored.start]
        text = self._tokenizer.token_text(first) if scored.texts and self._tokenizer else None
        scores: dict[str, Any] = {
            "input_token_logprobs": [(None, first, text), *map(self._chosen, later)]
        }
        likeliest = [self._likeliest(each) for each in later] if scored.top else []
        if scored.top and scored.flat.input:
            scores |= scored.flat.written("input", likeliest, scored.top, 1)
        elif scored.top:
            scores["input_top_logprobs"] = [None, *likeliest]
        return scores

    def _chosen(self, position: PositionLogprobs) -> Listed:
        return self._listed(*next(iter(position.items())))

    def _likeliest(self, position: PositionLogprobs) -> list[Listed]:
        most = sorted(position.items(), key=lambda item: -item[1].logprob)
        return [self._listed(*item) for item in most[: self._scored.top if self._scored else 0]]

    def _listed(self, token: int, entry: Logprob) -> Listed:
        texts = self._scored is not None and self._scored.texts
        return entry.logprob, token, entry.decoded_token if texts else None


def _put(info: MetaInfo, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        setattr(info, name, value)


def _finish_reason(delta: OutputDelta, prompt: Prompt) -> dict[str, Any] | None:
    match delta.finish_reason:
        case None:
            return None
        case "length":
            return {"type": "length", "length": prompt.params.max_tokens}
        case reason:
            matched = {} if delta.matched is None else {"matched": delta.matched}
            return {"type": reason, **matched}
