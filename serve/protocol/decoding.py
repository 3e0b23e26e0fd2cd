"""Decoding of requests: JSON to a typed struct, once, with errors that name the field.

    1. the names      unknown ones are refused with the nearest known name, unless they are null;
                      known ones that Ingot does not serve, unless their value changes nothing
    2. the values     msgspec decodes them into the route's struct

Owns the mechanism and the fields that both APIs share; the structs of a route lie beside this file.
Of two equal keys the last counts, as in most JSON parsers.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import msgspec

from engine.beams.params import EarlyStopping
from engine.errors import RequestError
from engine.stopping.repetition import RepetitionDetectionParams
from serve.protocol.invalid import invalid
from serve.protocol.response_format import ResponseFormat
from serve.protocol.unsupported import IGNORED, harmless_values, is_harmless

MAX_PROMPTS = 1024
MAX_PRIORITY = 2**31 - 1
MAX_ID_CHARS = 256
MAX_FIELDS = 1024  # some 100 are known, and others may be there if they are null
_TWO_NAMES = {  # SGLang's of what has another one in vLLM
    "custom_params": "vllm_xargs",
    "routed_experts_start_len": "routed_experts_prompt_start",
    "watermark": "watermarking",
}
_names_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`include_usage`: a last chunk with the counts. `continuous_usage_stats`: counts in each."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None

    def __post_init__(self) -> None:
        check_obfuscation(self.include_obfuscation)


class WatermarkWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SGLang's `watermark`: whether to have the server's; a request has no key of its own."""

    enabled: bool | None = None
    key: str | int | None = None
    context_window: int | None = None

    def __post_init__(self) -> None:
        for name in ("key", "context_window"):
            if getattr(self, name) is not None:
                raise RequestError(
                    f"watermark.{name} is the server's, by --watermark-config; send enabled alone.",
                    "watermark",
                )
        if self.enabled is None:
            raise RequestError("watermark needs enabled, true or false.", "watermark")


def check_obfuscation(wanted: bool | None) -> None:
    """Raise RequestError for OpenAI's padding against eavesdroppers, which is not made here."""
    if wanted:
        raise RequestError(
            "stream_options.include_obfuscation is not served here; leave it out or send false.",
            "stream_options",
        )


class CheckedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a request. `needs`: fields of which those of one group must be there."""

    needs: ClassVar[tuple[tuple[str, ...], ...]] = ()

    def check_shared(self) -> None:
        """Raise RequestError for combinations that no single field shows."""


class SamplingFields(msgspec.Struct, frozen=True, kw_only=True):
    """How tokens are chosen, by vLLM's names. None always means "as if it were not sent"."""

    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    bad_words: list[str] | None = None
    ignore_eos: bool | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    logprob_token_ids: list[int] | None = None
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: list[int] | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    structured_outputs: dict[str, Any] | None = None
    repetition_detection: RepetitionDetectionParams | None = None
    thinking_token_budget: int | None = None
    watermarking: bool | None = None
    routed_experts_prompt_start: int | None = None  # the first token whose experts are told


class GenerationRequest(SamplingFields, CheckedRequest, frozen=True, kw_only=True):
    """Fields of every generation route."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stream_interval: int | None = None  # tokens in a chunk, at least; not the first and the last
    stop_regex: str | list[str] | None = None  # SGLang's
    prompt_logprobs_start: int | None = None
    no_stop_trim: bool | None = None  # SGLang's name of include_stop_str_in_output
    echo: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: Literal["left", "right"] | None = None  # which end is cut: left, unless said
    priority: int | None = None
    cache_salt: str | None = None
    extra_key: str | None = None  # SGLang's; with a cache_salt both must be the same to share
    lora_path: str | None = None  # SGLang's: the name of an adapter, as `model` may be
    response_format: ResponseFormat | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_whitespace_pattern: str | None = None
    json_schema: str | dict[str, Any] | None = None
    regex: str | None = None
    ebnf: str | None = None
    vllm_xargs: dict[str, Any] | None = None  # of logits processors
    custom_params: dict[str, Any] | None = None  # SGLang's name of the same
    request_id: str | None = None  # what the response's id ends with, instead of one made here
    rid: str | None = None  # SGLang's: the response's whole id
    session_id: str | None = None  # by which `ingot router` has requests answered by one server
    watermark: WatermarkWish | None = None  # SGLang's form of watermarking
    return_token_ids: bool | None = None
    return_prompt_text: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    # SGLang's, under both its values: of the last layer, at the last token
    return_hidden_states: bool | Literal["last"] | None = None
    return_cached_tokens_details: bool | None = None  # SGLang's: where cached tokens were
    return_weight_versions: bool | None = None
    # SGLang's, in `sglext`; of streams at the end
    return_routed_experts: bool | None = None
    routed_experts_start_len: int | None = None  # the first token whose experts are told
    return_spec_tokens_details: bool | None = None
    use_beam_search: bool | None = None
    best_of: int | None = None
    length_penalty: float | None = None
    early_stopping: EarlyStopping | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens to generate, if the request says so."""
        return self.max_tokens

    @property
    def limit_name(self) -> str:
        """The field that says it."""
        return "max_tokens"

    @property
    def wants_logprobs(self) -> bool:
        """Whether each token is to have its log-probability."""
        return False

    def check_named(self, count: int | None, field: str, *fine: int) -> None:
        """Raise RequestError if `field` asks for the likeliest tokens where others are named; as
        many as those is no contradiction, nor is what is `fine`."""
        named = self.logprob_token_ids
        if named is not None and count not in (None, 0, len(named), *fine):
            raise RequestError(
                f"{field} {count} asks for the likeliest tokens, and logprob_token_ids for those "
                f"that it names; send {len(named)}, as many as it names.",
                field,
            )

    def response_id(self, kind: str, made_here: str) -> str:
        """The id that the response has; inside the server `made_here` stays the name."""
        return self.rid or f"{kind}-{self.request_id or made_here}"

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def continuous_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)

    def check_shared(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options needs stream to be true.", "stream_options")
        if self.stream_interval is not None and self.stream_interval < 1:
            raise RequestError(
                f"stream_interval must be at least 1, got {str(self.stream_interval)[:40]}.",
                "stream_interval",
            )
        if self.stream and self.prompt_logprobs is not None:
            raise RequestError(
                "prompt_logprobs cannot be streamed; leave out stream.", "prompt_logprobs"
            )
        if self.return_hidden_states:
            check_states(self.stream, self.use_beam_search)
        self._check_experts()
        if self.return_weight_versions and self.use_beam_search:
            raise RequestError(
                "return_weight_versions cannot be used with use_beam_search.",
                "return_weight_versions",
            )
        if self.prompt_logprobs_start and (self.prompt_logprobs is None or self.echo):
            raise RequestError(
                "prompt_logprobs_start needs prompt_logprobs, without echo.",
                "prompt_logprobs_start",
            )
        if abs(self.priority or 0) > MAX_PRIORITY:
            raise RequestError(f"priority must be within ±{MAX_PRIORITY}.", "priority")
        for theirs, ours in _TWO_NAMES.items():
            if getattr(self, theirs) and getattr(self, ours) not in (None, {}):
                raise RequestError(f"{theirs} and {ours} are the same; send one.", theirs)
        check_id("session_id", self.session_id)
        check_names(self)
        if self.logprob_token_ids is not None and not self.wants_logprobs:
            raise RequestError("logprob_token_ids needs logprobs.", "logprob_token_ids")
        tail = self.truncate_prompt_tokens
        if tail is not None and tail < 1 and tail != -1:
            raise RequestError(
                f"truncate_prompt_tokens must be at least 1, or -1 for what fits, got {tail}.",
                "truncate_prompt_tokens",
            )
        check_side(self.truncation_side, tail)

    def _check_experts(self) -> None:
        if self.routed_experts_start_len and not self.return_routed_experts:
            raise RequestError(
                "routed_experts_start_len needs return_routed_experts.", "routed_experts_start_len"
            )
        if self.stream and self.routed_experts_prompt_start:
            raise RequestError(
                "routed experts cannot be streamed; leave out stream.",
                "routed_experts_prompt_start",
            )


class Named(Protocol):
    """A request that may name its response."""

    @property
    def request_id(self) -> str | None: ...
    @property
    def rid(self) -> str | None: ...


def check_names(request: Named) -> None:
    """Raise RequestError for two names, or one that cannot be."""
    check_id("request_id", request.request_id)
    check_id("rid", request.rid)
    if request.request_id is not None and request.rid is not None:
        raise RequestError("request_id and rid both name the response; send one.", "rid")


def check_id(name: str, value: str | None) -> None:
    """Raise RequestError for a name that is empty or long."""
    if value is not None and not 0 < len(value) <= MAX_ID_CHARS:
        raise RequestError(f"{name} must have 1 to {MAX_ID_CHARS} characters.", name)


def check_side(side: str | None, tail: int | None) -> None:
    """Raise RequestError for a truncation_side of what is not cut."""
    if side is not None and tail is None:
        raise RequestError(
            "truncation_side says which end truncate_prompt_tokens cuts; send that too, or "
            "neither.",
            "truncation_side",
        )


def check_states(stream: bool | None, beams: bool | None = None) -> None:
    """Raise RequestError for what does not go with return_hidden_states."""
    if stream:
        raise RequestError(
            "return_hidden_states cannot be streamed; leave out stream.", "return_hidden_states"
        )
    if beams:
        raise RequestError(
            "return_hidden_states cannot be used with use_beam_search.", "return_hidden_states"
        )


RequestT = TypeVar("RequestT", bound=CheckedRequest)


def decode_request(body: bytes, kind: type[RequestT]) -> RequestT:
    """`body` as a `kind`; raises RequestError naming the field at fault."""
    names = field_names(body)
    with _reading(kind):
        for name, raw in names.items():
            if name not in kind.__struct_fields__ and name not in IGNORED:
                check_unserved(name, msgspec.json.decode(raw), kind)
        request: RequestT = _decoder(kind).decode(body)
    request.check_shared()
    return request


def field_names(body: bytes) -> Mapping[str, msgspec.Raw]:
    """The fields of `body`, not decoded; raises RequestError."""
    with _reading(dict):
        names = _names_decoder.decode(body)
    if len(names) > MAX_FIELDS:
        raise RequestError(f"The body has {len(names)} fields; at most {MAX_FIELDS} may be.")
    return names


@contextmanager
def _reading(kind: type) -> Iterator[None]:
    """Errors of a body that is to be a `kind` are the request's."""
    try:
        yield
    except msgspec.ValidationError as error:
        raise invalid(error, kind) from None
    except msgspec.DecodeError as error:
        raise RequestError(f"The body is not valid JSON: {error}.") from None
    except UnicodeDecodeError:
        raise RequestError("The body is not valid UTF-8.") from None
    except RecursionError:
        raise RequestError("The body is nested too deeply.") from None


@cache
def _decoder(kind: type) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def check_unserved(name: str, value: Any, kind: type[CheckedRequest]) -> None:
    """Raise RequestError unless `value` of a field that a `kind` has not asks for nothing."""
    known = is_harmless(name, value)
    if known is True or value is None:  # which is as if it were not sent, whatever it would mean
        return
    shown = _shown(name)
    if known is False:
        fine = [msgspec.json.encode(each).decode() for each in harmless_values(name)]
        rest = "".join(f" or send {each}" for each in fine)
        raise RequestError(
            f"{shown} is not supported here with this value; leave it out{rest}.", shown
        )
    nearest = difflib.get_close_matches(name[:64], kind.__struct_fields__, n=1, cutoff=0.6)
    hint = f"; did you mean {nearest[0]}?" if nearest else "."
    raise RequestError(f"There is no field {shown}{hint}", shown)


def _shown(name: str) -> str:
    """A name from outside, safe in a message and in a log."""
    return name[:64].encode("ascii", "backslashreplace").decode() if name.isprintable() else "?"


class PromptTokensDetails(msgspec.Struct):
    """How much of the prompt was found in the cache."""

    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct):
    """How much of what was generated is reasoning, and how much of what was predicted is in it."""

    reasoning_tokens: int | msgspec.UnsetType = msgspec.UNSET
    accepted_prediction_tokens: int | msgspec.UnsetType = msgspec.UNSET
    rejected_prediction_tokens: int | msgspec.UnsetType = msgspec.UNSET


class Usage(msgspec.Struct):
    """Token counts of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | msgspec.UnsetType = msgspec.UNSET
    completion_tokens_details: CompletionTokensDetails | msgspec.UnsetType = msgspec.UNSET


def summed(parts: Sequence[CompletionTokensDetails]) -> CompletionTokensDetails | None:
    """The sums of what is known; None where nothing is."""
    sums = {}
    for name in CompletionTokensDetails.__struct_fields__:
        counts = [getattr(part, name) for part in parts]
        if known := [count for count in counts if count is not msgspec.UNSET]:
            sums[name] = sum(known)
    return CompletionTokensDetails(**sums) if sums else None


def usage_of(
    prompt_tokens: int,
    completion_tokens: int,
    cached_tokens: int,
    written: CompletionTokensDetails | None = None,
) -> Usage:
    """Counts as OpenAI reports them; cached tokens are left out where there are none."""
    details = PromptTokensDetails(cached_tokens) if cached_tokens else msgspec.UNSET
    total = prompt_tokens + completion_tokens
    return Usage(prompt_tokens, completion_tokens, total, details, written or msgspec.UNSET)
