"""A request inside the engine: its tokens, how far they are computed, and what it owns.

There are no phases. `num_computed` chases `num_tokens`; the difference is what the next step may
compute. Right after a launch the newest token is on the device only, so

    token_ids      prompt and generated tokens that the host knows
    num_in_flight  tokens sampled by launched steps that the host has not read yet
    num_tokens     both together
"""

import enum
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from engine.adapters.request import LoRARequest, namespace
from engine.adapters.slots import NO_ADAPTER
from engine.cache.page_key import PageKey
from engine.encoders.align_request import Aligned, AlignRequest
from engine.encoders.pages import EncoderInput
from engine.grammar.matcher import Constraint
from engine.messages import AddRequest, FinishReason
from engine.reasoning.thinking import Thinking
from engine.sampling.options import needs_admission
from engine.sampling.params import SamplingParams
from engine.sampling.speech_times import SpeechTimes
from engine.speculation.drafter import Drafter
from engine.vectors.prompt_embeds import PromptEmbeds


class Status(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    FINISHED = enum.auto()


@dataclass(slots=True, eq=False)
class Request:
    """One sequence being continued."""

    request_id: int
    params: SamplingParams
    token_ids: list[int]
    num_prompt_tokens: int
    max_tokens: int  # length, prompt included, at which the request ends
    eos_token_ids: frozenset[int]  # the model's
    stop_token_ids: frozenset[int]  # its own, and the model's unless they are ignored
    bad_word_ids: list[list[int]]
    priority: int
    arrival: int  # counts up; the order among equals
    seed: int
    namespace: str  # of the prefix cache
    observed: bool  # its sampling depends on the tokens before, so the device counts them

    status: Status = Status.WAITING
    arrival_time: float = field(default_factory=monotonic)
    queue_seconds: float | None = None  # how long it waited for its first slot
    num_computed: int = 0
    num_in_flight: int = 0
    num_prompt_logprobs: int = 0  # prompt positions that are scored, on their way, or not asked for
    slot: int | None = None
    pages: list[int] = field(default_factory=list)
    page_keys: list[PageKey] = field(default_factory=list)  # of leading full pages, once asked for
    num_pages_sent: int = 0  # leading pages that the device's table has
    num_pages_kept: int = 0  # leading pages that the prefix cache knows
    num_pages_found: int = 0  # leading pages that others had computed
    num_pages_shared: int = 0  # leading pages that were there when it last got a slot
    state_source: int | None = None  # the slot of the state behind the pages it began with
    num_cached_tokens: int = 0  # found in the prefix cache when it got its first slot
    num_external_tokens: int = 0  # of these, what was in the host's memory
    num_preemptions: int = 0
    constraint: Constraint | None = None  # where it stands in its grammar, if it has one
    thinking: Thinking | None = None  # its budget of reasoning, if it has one
    extra_fields: NDArray[np.int32] | None = None  # what logits processors are told of it
    num_reported: int = 0  # generated tokens that the front knows of
    encoder: EncoderInput | None = None  # of a model that has an encoder
    align: AlignRequest | None = None  # of its prompt's tokens it is asked when they were said
    aligned: Aligned | None = None  # the answer, on its way
    embeds: PromptEmbeds | None = None  # what its prompt is, if that is no tokens
    num_states: int | None = None  # tokens whose hidden states are told, or not asked for
    num_routed: int | None = None  # tokens whose experts are told, likewise
    lora: LoRARequest | None = None  # its adapter
    adapter_slot: int = NO_ADAPTER  # while it runs
    drafter: Drafter | None = None  # guesses its next tokens
    watermark_key: tuple[int, int] = (0, 0)  # of the engine, if it has one
    timed: bool = False  # what it writes is held to the order of times

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids) + self.num_in_flight

    @property
    def num_generated(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def wants_more(self) -> bool:
        """Whether a further token is to be sampled once those in flight have arrived."""
        return self.num_tokens < self.max_tokens

    @property
    def blocked(self) -> bool:
        """Whether its grammar or its budget of reasoning must see a token, or its grammar say what
        may follow, before it goes on."""
        if self.thinking is not None and self.most_ahead == 0:
            return True
        if self.constraint is None:
            return False
        return self.num_in_flight > 0 or not self.constraint.ready

    @property
    def runs_ahead(self) -> bool:
        """Whether its newest token can be computed before its grammar says what may follow."""
        alone = self.constraint is not None and self.thinking is None
        return alone and self.num_tokens - self.num_computed == 1

    @property
    def is_late(self) -> bool:
        """Whether all its tokens are computed, and the next is not chosen yet."""
        return self.status is Status.RUNNING and self.num_computed == self.num_tokens

    @property
    def most_ahead(self) -> int:
        """How many more tokens may be sampled before those in flight are read."""
        rest = self.max_tokens - self.num_tokens
        if self.thinking is None:
            return rest
        return min(rest, self.thinking.most_ahead(self.token_ids, self.num_in_flight))

    @property
    def forced_token_id(self) -> int | None:
        """What the row that samples for it next must give; called once that is in flight."""
        if self.thinking is None:
            return None
        return self.thinking.forced(self.token_ids, self.num_in_flight - 1)

    @property
    def num_reusable(self) -> int:
        """Leading tokens that need not be computed if the cache has them.

        The last is needed for its logits, and those before scored tokens for theirs, or for their
        hidden states or experts; what was generated is counted as it enters the model, where
        sampling depends on it.
        """
        known = len(self.token_ids) - 1
        if self.num_states is not None:
            known = min(known, self.num_states)
        if self.num_routed is not None:
            known = min(known, self.num_routed)
        if self.params.prompt_logprobs is not None:
            known = min(known, _first_scored(self.params))
        return min(known, self.num_prompt_tokens) if self.observed else known

    @property
    def order(self) -> tuple[int, int]:
        """Who goes first; the last in this order is preempted first."""
        return self.priority, self.arrival

    @property
    def banned_token_ids(self) -> frozenset[int]:
        """What may not be chosen before `min_tokens`: end of text, ignored or not, and stop ids."""
        return self.eos_token_ids.union(self.params.stop_token_ids or ())

    @property
    def ended_by_eos(self) -> bool:
        """Whether the newest known token is an end of text that counts; a grammar's always does."""
        counts = not self.params.ignore_eos or self.constraint is not None
        return counts and self.token_ids[-1] in self.eos_token_ids

    def append(self, token_id: int) -> FinishReason | None:
        """Know one more token; returns why it ends the request, if it does."""
        self.token_ids.append(token_id)
        if token_id in self.stop_token_ids and self.num_generated >= self.params.min_tokens:
            return "stop"
        return "length" if len(self.token_ids) >= self.max_tokens else None

    def rewind(self) -> None:
        """Forget everything computed; all known tokens will be computed again."""
        self.status = Status.WAITING
        self.num_computed = 0
        self.num_pages_sent = self.num_pages_kept = 0
        self.slot = None
        self.pages = []


def make_request(
    message: AddRequest,
    *,
    arrival: int,
    seed: int,
    max_model_len: int,
    eos: frozenset[int],
    max_encoder_len: int = 0,
    embeds: PromptEmbeds | None = None,
    times: SpeechTimes | None = None,
) -> Request:
    """A `Request` of a message that `admission` has checked; `seed` is for one without its own."""
    params = message.params
    prompt = len(message.prompt_token_ids)
    room = max_model_len - prompt
    own_stops = frozenset(params.stop_token_ids or ())
    ignores_eos = params.ignore_eos and not message.grammar  # a grammar's end is the text's
    encoder = _encoder_input(message, max_encoder_len)
    timed = times is not None and message.times_from == times.first
    return Request(
        request_id=message.request_id,
        params=params,
        token_ids=list(message.prompt_token_ids),
        num_prompt_tokens=prompt,
        max_tokens=prompt + min(room, params.max_tokens or room),
        eos_token_ids=eos,
        stop_token_ids=own_stops if ignores_eos else eos | own_stops,
        bad_word_ids=message.bad_word_ids,
        priority=message.priority,
        arrival=arrival,
        seed=params.seed if params.seed is not None else seed,
        namespace=_namespace(namespace(message.cache_salt, message.lora), encoder, embeds),
        observed=needs_admission(params) or timed,
        timed=timed,
        num_prompt_logprobs=_first_scored(params),
        encoder=encoder,
        align=message.align,
        embeds=embeds,
        num_states=message.hidden_from,
        num_routed=message.routed_from,
        lora=message.lora,
    )


def _namespace(cache_salt: str, encoder: EncoderInput | None, embeds: PromptEmbeds | None) -> str:
    """In which its pages are found: by whom they hold the same for."""
    if embeds is not None:
        return embeds.namespace(cache_salt)
    return encoder.namespace if encoder else cache_salt


def _first_scored(params: SamplingParams) -> int:
    """The first position whose logits score a token of the prompt, which is the one after it."""
    return max(0, params.prompt_logprobs_start - 1)


def _encoder_input(message: AddRequest, length: int) -> EncoderInput | None:
    """Windows of audio all have the whole length."""
    if message.encoder_features:
        return EncoderInput.heard(message.encoder_features, length, message.cache_salt)
    ids = message.encoder_token_ids
    return EncoderInput.of(ids, message.cache_salt) if ids else None
