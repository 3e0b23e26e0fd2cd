"""What `/v1/completions` takes and gives: OpenAI's fields, and vLLM's extensions."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from engine.errors import RequestError
from engine.messages import FinishReason
from engine.sampling.params import MAX_LOGPROBS
from serve.generation.provenance import SglExt, WeightVersionSpan
from serve.generation.timing import TimingMetrics
from serve.native.sessions import SessionParams
from serve.protocol.decoding import MAX_PROMPTS, GenerationRequest, Usage

DEFAULT_MAX_TOKENS = 16
TextOrIds = str | list[int]


class CompletionRequest(GenerationRequest, frozen=True, kw_only=True):
    """`logprobs` k asks for the chosen token and the k likeliest at each position."""

    needs = (("prompt",), ("prompt_embeds",))
    prompt: str | list[str | int | list[int]] | None = None
    prompt_embeds: str | list[str] | None = None  # base64 of tensors; answered before `prompt`
    logprobs: int | None = None
    suffix: str | None = None  # what follows the gap that is to be filled
    session_params: SessionParams | None = None  # SGLang's: a prompt goes on where another ended

    def prompts(self) -> list[TextOrIds]:
        """The prompts, each a text or its ids; raises RequestError for a list of mixed kinds.

        Beside prompts of embeddings an empty one is none.
        """
        prompt = self.prompt
        if self.prompt_embeds is not None and not prompt:
            return []
        if isinstance(prompt, str):
            return [prompt]
        if not prompt:
            raise RequestError("prompt must be a text, token ids, or a list of either.", "prompt")
        kind = type(prompt[0])
        if set(map(type, prompt)) != {kind}:  # in C: a prompt may hold a million ids
            raise RequestError("prompt must hold texts only or token ids only.", "prompt")
        if kind is int:
            return [prompt]  # type: ignore[list-item]
        if len(prompt) > MAX_PROMPTS:
            raise RequestError(f"prompt may hold at most {MAX_PROMPTS} prompts.", "prompt")
        return prompt  # type: ignore[return-value]

    @property
    def wants_logprobs(self) -> bool:
        return self.logprobs is not None

    @property
    def only_echo(self) -> bool:
        """Whether the prompt is to be scored and nothing generated."""
        return self.max_tokens == 0 and bool(self.echo)

    @property
    def limit(self) -> int | None:
        """Scoring a prompt takes one run of the model, which makes one token that is not shown."""
        return 1 if self.only_echo else self.max_tokens

    def check_shared(self) -> None:
        super().check_shared()
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise RequestError(
                f"logprobs must be between 0 and {MAX_LOGPROBS}, got {self.logprobs}.", "logprobs"
            )
        if not self.echo:  # whose tokens show the likeliest
            self.check_named(self.logprobs, "logprobs", 1)  # 1 for "yes"
        self._check_session()
        if self.stream and self.echo and self.logprobs is not None and (self.n or 1) > 1:
            raise RequestError("echo with logprobs can be streamed for n = 1 only.", "n")

    def _check_session(self) -> None:
        """Raise RequestError for a turn of a session that is no single text to go on with."""
        if self.session_params is None:
            return
        for name in ("n", "best_of"):
            if (getattr(self, name) or 1) > 1:
                raise RequestError(f"session_params is of one answer; leave out {name}.", name)
        for name in ("echo", "suffix", "prompt_embeds", "truncate_prompt_tokens"):
            if getattr(self, name):
                raise RequestError(f"{name} cannot be used with session_params.", name)
        if len(self.prompts()) > 1:
            raise RequestError(
                "session_params is of one text or of its ids, once.", "session_params"
            )


class CompletionLogprobs(Struct):
    """Parallel lists, one entry a token; the first token of a prompt has no log-probability."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoice(Struct):
    """One continuation, or a piece of it when streamed."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | UnsetType | None = UNSET
    matched_stop: int | str | UnsetType | None = UNSET  # SGLang's name; the end of text, too
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_text: str | UnsetType = UNSET
    prompt_logprobs: list[Any] | UnsetType | None = UNSET
    hidden_states: list[float] | UnsetType = UNSET
    routed_experts: str | UnsetType = UNSET  # `serve.generation.routed_experts`
    weight_versions: list[WeightVersionSpan] | UnsetType = UNSET


class Completion(Struct, kw_only=True):
    """The whole response, or one chunk of it when streamed; a chunk may lack `usage`."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    system_fingerprint: str
    usage: Usage | UnsetType = UNSET
    sglext: SglExt | UnsetType = UNSET
    metrics: TimingMetrics | UnsetType = UNSET
