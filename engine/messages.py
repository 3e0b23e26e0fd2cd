"""What the front and the engine say to each other: typed structs, one message each way per step.

The same structs are used in one process (`LLM`) and over the socket (`ingot serve`). Texts never
cross: the front turns text to ids and ids to text, the engine knows ids only.
"""

from typing import Literal

import msgspec

from engine.adapters.request import LoRARequest
from engine.beams.params import BeamSearchParams
from engine.cache.page_map import PageMap
from engine.config import EngineConfig
from engine.encoders.align_request import AlignRequest
from engine.logs import LogSettings
from engine.pooling_params import PoolingParams
from engine.profiling.request import ProfileRequest
from engine.reasoning.thinking import ThinkingBudget
from engine.sampling.params import SamplingParams
from engine.vectors.routed_rows import RoutedRows

FIRST_WEIGHTS = "default"  # as vLLM calls weights that nobody has changed since the start
WeightsState = Literal["resident", "offloaded", "discarded"]  # offloaded: to the host's memory
CacheState = Literal["resident", "discarded"]
FinishReason = Literal["stop", "length", "abort", "error", "repetition"]


class StartEngine(msgspec.Struct, kw_only=True):
    """The front's first message; without `logs` the engine's records are nobody's."""

    config: EngineConfig
    logs: LogSettings | None = None


class AddRequest(msgspec.Struct, tag="add", kw_only=True):
    """One sequence to continue; n samples of a prompt are n of these with seeds of their own."""

    request_id: int
    prompt_token_ids: list[int]
    params: SamplingParams
    bad_word_ids: list[list[int]] = []
    priority: int = 0  # lower is sooner
    cache_salt: str = ""  # only requests with the same one share what is cached of their prompts
    grammar: str = ""  # what the output must satisfy, as engine.grammar.source writes it
    thinking: ThinkingBudget | None = None
    encoder_token_ids: list[int] = []  # what the encoder reads, of a model that has one
    encoder_features: bytes = b""  # what it hears instead: float32 [frames, mels], little-endian
    times_from: int = 0  # the first token that is a time, of what is to be written with times
    align: AlignRequest | None = None  # when what is heard was said; nothing is generated for it
    prompt_embeds: bytes = b""  # [tokens, D] in the model's dtype; the ids are all GIVEN then
    same_embeds_as: int | None = None  # the request, added just before, whose embeddings it has
    hidden_from: int | None = None  # the first token whose hidden states are wanted
    routed_from: int | None = None  # the first token whose experts are wanted
    prediction_token_ids: list[int] = []  # what the answer may be: guesses begin with it
    lora: LoRARequest | None = None  # its adapter

    @property
    def sequences(self) -> list[int]:
        """The ids under which it is answered."""
        return [self.request_id]


class AddBeams(msgspec.Struct, tag="beams", kw_only=True):
    """A prompt whose best continuations are searched; they come whole, at the end, best first."""

    request_ids: list[int]  # one for each sequence that is wanted, at most beam_width
    prompt_token_ids: list[int]
    params: BeamSearchParams
    num_logprobs: int | None = None  # as `logprobs` of `SamplingParams`
    priority: int = 0
    cache_salt: str = ""
    encoder_token_ids: list[int] = []
    lora: LoRARequest | None = None

    @property
    def sequences(self) -> list[int]:
        """The ids under which it is answered."""
        return self.request_ids


NewRequest = AddRequest | AddBeams


class PoolRequest(msgspec.Struct, tag="pool", kw_only=True):
    """One sequence whose vector, or whose scores of classes, are wanted."""

    request_id: int
    prompt_token_ids: list[int]
    params: PoolingParams
    token_type_ids: list[int] = []  # of which text of a pair each token is; none are all 0
    priority: int = 0

    @property
    def sequences(self) -> list[int]:
        """The ids under which it is answered."""
        return [self.request_id]


class AbortRequests(msgspec.Struct, tag="abort"):
    """Forget these requests; ids that are unknown or finished are ignored."""

    request_ids: list[int]


class ResetPrefixCache(msgspec.Struct, tag="reset_prefix_cache"):
    """Find no beginning of a prompt again that was computed before this."""


class FreezeGarbage(msgspec.Struct, tag="freeze_garbage"):
    """Look for garbage no more among what the process has now."""


class Freeze(msgspec.Struct, tag="freeze"):
    """Start no step until a `Thaw`, and say so in an `Answer`; those that were started are read."""

    retract: bool  # requests that run give back their pages, and begin again behind what is found
    call_id: int = 0


class Thaw(msgspec.Struct, tag="thaw"):
    """Requests go on."""


class Release(msgspec.Struct, tag="release"):
    """Let go of memory, start no step until a `Restore` has brought all back, and say so in an
    `Answer`. Requests stay, and begin again."""

    weights: WeightsState
    kv_cache: CacheState
    call_id: int = 0


class Restore(msgspec.Struct, tag="restore"):
    """Bring memory back that was let go of, and say in an `Answer` whether it is there."""

    weights: bool = True
    kv_cache: bool = True
    call_id: int = 0


class ReadWeights(msgspec.Struct, tag="read_weights"):
    """Go on with the weights of another checkpoint that fits the programs, and say in an `Answer`
    whether that is so; if not, the old ones stay. Requests stay, and begin again."""

    path: str = ""  # empty: the checkpoint that was read last, as it is on the disk now
    version: str = ""  # by which answers name them; empty: as before
    load_format: Literal["auto", "dummy"] = "auto"
    call_id: int = 0


MemoryChange = Release | Restore | ReadWeights


class LoadAdapter(msgspec.Struct, tag="load_adapter"):
    """Read an adapter, and say in an `Answer` whether requests can have it."""

    lora: LoRARequest
    call_id: int = 0


class StartProfile(msgspec.Struct, tag="start_profile"):
    """Trace steps, and say in an `Answer` whether that has begun, or will."""

    request: ProfileRequest
    call_id: int = 0


class StopProfile(msgspec.Struct, tag="stop_profile"):
    """End the trace, and say in an `Answer` whether it is written."""

    call_id: int = 0


class ReadPages(msgspec.Struct, tag="read_pages"):
    """Report what the pages of the cache hold."""


class Speak(msgspec.Struct, tag="speak"):
    """Report, if only to be heard: an engine that hangs does not."""


# the operator's, each answered under the `call_id` that it is sent with
Question = Freeze | MemoryChange | LoadAdapter | StartProfile | StopProfile
ToEngine = (
    NewRequest | PoolRequest | AbortRequests | ResetPrefixCache | FreezeGarbage | Question | Thaw
    | ReadPages | Speak
)  # fmt: skip


class TokenLogprobs(msgspec.Struct, array_like=True):
    """Log-probabilities at one position: first the chosen token, then the k likeliest in order."""

    token_ids: list[int]
    logprobs: list[float]
    rank: int  # of the chosen token, 1 is the likeliest


class RequestDelta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one step added to one request."""

    request_id: int
    new_token_ids: list[int] = []
    logprobs: list[TokenLogprobs] | None = None  # one for each new token, when asked for
    prompt_logprobs: list[TokenLogprobs] | None = None  # of prompt tokens 1.., in order, piecewise
    finish_reason: FinishReason | None = None
    complete: bool = False  # "stop" without a stop token: the grammar leaves nothing to add
    stop_token_id: int | None = None  # the stop token that ended it, if one did and it is not EOS
    num_cached_tokens: int = 0
    num_external_tokens: int = 0  # of those cached, what was in the host's memory
    num_preemptions: int = 0  # so far
    num_drafted: int = 0  # tokens that were guessed to be new ones
    num_accepted: int = 0  # of these, those that are
    queue_seconds: float | None = None  # with the first token: arrival to slot
    vector: bytes | None = None  # of a PoolRequest: float32, little-endian
    hidden_states: list[bytes] = []  # of more tokens, in order: float32 [D], little-endian
    routed_experts: bytes = b""  # of more tokens, in order, as `RoutedRows` says
    alignment: bytes = b""  # for an AlignRequest: float32 [tokens, positions], little-endian
    error: str | None = None  # with finish_reason "error"; a sentence for the client
    error_param: str | None = None
    internal: bool = False  # the error is a mistake of ours, and not the request's


def refusal(
    request: NewRequest | PoolRequest,
    error: str,
    param: str | None = None,
    *,
    internal: bool = False,
) -> list[RequestDelta]:
    """The end of each sequence of a request that cannot be begun."""
    return [
        RequestDelta(
            request_id=each, finish_reason="error", error=error, error_param=param,
            internal=internal,
        )
        for each in request.sequences
    ]  # fmt: skip


def end_without_number(delta: RequestDelta) -> None:
    """End a request to which the model gave what is no number."""
    delta.finish_reason, delta.internal = "error", True
    delta.error = (
        "The model gave what is no number (NaN): some of its weights are none, or what it computes "
        "is too large for its dtype. `ingot check MODEL` says where; --dtype float32 has more room."
    )


class EngineStats(msgspec.Struct, kw_only=True):
    """Counters since the start, and gauges of now."""

    num_running: int = 0
    num_waiting: int = 0
    num_deferred: int = 0  # besides these, what waits for its grammar to be compiled
    num_pages: int = 0
    num_free_pages: int = 0
    num_preemptions: int = 0
    num_corrupted: int = 0  # requests that ended because the model gave no number
    num_drafts: int = 0  # rows that decoded with guesses of what follows
    num_draft_tokens: int = 0
    accepted_per_place: list[int] = []  # of the first guesses of drafts, of the second, ...
    prefix_cache_queries: int = 0  # tokens that were looked for
    prefix_cache_hits: int = 0  # tokens that were found
    external_prefix_cache_queries: int = 0  # tokens that the device did not have
    external_prefix_cache_hits: int = 0  # tokens of these that the host had
    num_host_pages: int = 0
    num_used_host_pages: int = 0
    kv_offload_store_bytes: int = 0  # copied to the host
    kv_offload_load_bytes: int = 0  # and back
    num_steps: int = 0
    num_compiles_after_warmup: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    scheduled_tokens: int = 0  # useful tokens of all steps
    padded_tokens: int = 0  # tokens of all steps, padding included
    step_seconds: float = 0.0
    host_seconds: float = 0.0
    weights: WeightsState = "resident"
    kv_cache: CacheState = "resident"
    weight_version: str = FIRST_WEIGHTS


class PageEviction(msgspec.Struct, array_like=True):
    """A page of the cache whose content was given up for another's; seconds."""

    lifetime: float  # since it was allocated
    idle: float  # since somebody last began with it
    gaps: list[float]  # between those who did


class Answer(msgspec.Struct, array_like=True):
    """To an operator's message: it is done, or cannot be."""

    call_id: int  # of the message
    error: str | None = None  # a sentence for the operator
    param: str | None = None  # the field at fault, by its name here


class StepReport(msgspec.Struct, tag="step", kw_only=True, omit_defaults=True):
    """Everything one step has to say."""

    deltas: list[RequestDelta]
    stats: EngineStats
    evictions: list[PageEviction] = []  # of the pages that are watched
    pages: PageMap | None = None  # after `ReadPages`
    answers: list[Answer] = []
    sent_at: float = 0.0  # by `time.monotonic`, which is one clock for all processes of a machine


class ModelInfo(msgspec.Struct, tag="ready", kw_only=True):
    """Sent once, when the engine can serve."""

    architecture: str
    vocab_size: int
    max_model_len: int
    num_parameters: int
    eos_token_ids: list[int]
    max_num_seqs: int
    num_pages: int
    page_size: int
    load_seconds: float
    compile_seconds: float
    warm_up_seconds: float = 0.0  # of those: what goes between steps
    dtype: str = "float32"
    quantization: str | None = None  # of the weights
    device: str = "cpu"
    num_devices: int = 1
    attention_backend: str = "xla"
    parameter_bytes: int = 0
    kv_cache_bytes: int = 0
    temporary_bytes: int = 0  # on each device, of the steps in flight
    num_host_pages: int = 0
    task: Literal["generate", "embed", "classify"] = "generate"
    can_generate: bool = True  # with --runner generate, if not now
    per_token: bool = False  # a vector, or scores of the classes, of each token or step
    embedding_size: int = 0  # numbers of a vector, or classes
    labels: list[str] = []  # of the classes
    lower_case: bool = False  # texts are to be lowered before they are tokenised
    takes_token_types: bool = False
    max_encoder_len: int = 0  # tokens that an encoder reads; 0: there is none, texts go on
    decoder_prompt: list[int] = []  # with which a decoder begins that has an encoder
    mel_bins: int = 0  # of the spectrograms that it takes, two frames a position, instead of text
    aligns: bool = False  # it can say when the words that it hears are said
    prompt_embeds_size: int = 0  # D of the embeddings that prompts may be; 0: tokens only
    hidden_size: int = 0  # D of the hidden states that requests may ask for; 0: they may not
    routed: RoutedRows | None = None  # what is told of each token's experts, if anything is
    processed_logprobs: bool = False  # those of answers are of what their tokens are drawn from
    watermarks: bool = False  # what it draws has a watermark, unless a request says otherwise


class EngineFailed(msgspec.Struct, tag="failed"):
    """The engine cannot start or go on: one sentence, and whether the user's settings caused it."""

    message: str
    user_error: bool


FromEngine = StepReport | ModelInfo | EngineFailed
