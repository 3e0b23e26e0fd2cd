"""The Python API for scripts and notebooks: one model, in this process, shaped as vLLM's `LLM`.

    from engine import LLM, SamplingParams
    llm = LLM()                                       # the bundled demo model
    llm.generate("Once upon a time", SamplingParams(max_tokens=40))[0].outputs[0].text

Owns what a call accepts and returns; `calls` owns how its requests run. A stream that is dropped
frees its row.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from engine.adapters.request import LoRARequest
from engine.beams.params import BeamSearchParams
from engine.calls import Call, Loop, Params, Priority, finished, params_of
from engine.config import make_config
from engine.core import EngineCore
from engine.cores import make_core
from engine.errors import RequestError
from engine.grammar.process import GrammarProcess
from engine.language.local import LocalBackend
from engine.language.state import State
from engine.messages import ModelInfo
from engine.model_files import located, tokenizer_folder
from engine.model_info import described
from engine.operations import Operations
from engine.outputs import BeamSearchOutput, OutputDelta, RequestOutput
from engine.pooling.calls import Pooler, texts_of
from engine.pooling.core import PoolingCore
from engine.pooling.inputs import check_task
from engine.pooling.outputs import (
    ClassificationRequestOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    ScoringRequestOutput,
)
from engine.pooling_params import PoolingParams
from engine.profiling.profiler import Profiler
from engine.prompts import Adapters, Prompt, PromptLike, as_prompt, as_prompts, with_adapters
from engine.reasoning.config import ReasoningConfig
from engine.reasoning.config import reasoning_config as config_of
from engine.sampling.defaults import default_sampling_params
from engine.sampling.params import MAX_LOGPROBS, SamplingParams
from engine.templates.chat_template import ChatTemplate, Rendered
from engine.tokenizers.tokenizer import Tokenizer
from models.checkpoints.checkpoint import find_folder

Message = dict[str, Any]


class LLM(Operations):
    """A model that is loaded, compiled and ready; also a context manager that closes it. Threads
    may call it at once: their requests share steps.

    Args:
        model: a folder in Hugging Face layout, a GGUF file, a name on the Hugging Face hub
            ("org/name", or "org/name:Q4_K_M" for a GGUF file), or "demo" for the bundled model.
        chat_template: Jinja source that replaces the model's own.
        reasoning_config: the strings around the model's reasoning, for `thinking_token_budget`:
            `ReasoningConfig(reasoning_start_str="<think>", reasoning_end_str="</think>")`, or a
            dict of it; those two are found in the chat template.
        settings: fields of `EngineConfig`, named as vLLM's engine arguments.

    Raises:
        ModelError: the model cannot be loaded.
        ConfigError: a setting is wrong or does not fit the machine.
    """

    def __init__(
        self,
        model: str = "demo",
        *,
        chat_template: str | None = None,
        reasoning_config: ReasoningConfig | dict[str, str] | None = None,
        **settings: Any,
    ) -> None:
        config = located(make_config(model=str(model), **settings))
        folder = find_folder(config.model)
        tokenizer = Tokenizer.load(tokenizer_folder(config))
        sources: Mapping[str, str] = tokenizer.chat_templates if tokenizer else {}
        if tokenizer and chat_template is not None:
            sources = {"default": chat_template}
        self._reasoning = config_of(reasoning_config, sources.values())
        self._profiler = Profiler(config.profiler_config)
        self._core, self._tokenizer = make_core(config), tokenizer
        self._grammars = GrammarProcess(tokenizer_folder(config), self._core.info)
        self._template = (
            ChatTemplate(sources, tokenizer.special_tokens, guard=tokenizer.guard)
            if tokenizer and sources
            else None
        )
        self._defaults = default_sampling_params(folder)
        self.model = model
        self._queued: list[Call] = []

    def generate(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        sampling_params: Params = None,
        *,
        use_tqdm: bool = True,
        lora_request: Adapters = None,
        priority: Priority = 0,
    ) -> list[RequestOutput]:
        """Continue each prompt: a text, a list of token ids, or `{"prompt_token_ids": [...]}`; with
        `enable_prompt_embeds=True` also `{"prompt_embeds": array}`, a row [D] for each token as the
        model's embedding layer gives it in transformers.

        All prompts are checked before any is run. `use_tqdm` shows progress once it takes long.
        With `enable_lora` each may have an adapter: `lora_request=LoRARequest("sql", 1, "path")`.

        What the output must satisfy is said in the sampling params: a JSON schema, a regex, a list
        of choices, a grammar or structural tags. Every output that ends with "stop" satisfies it,
        at any temperature; one that is cut off ("length") is the beginning of one that would:

            pet = {"type": "object", "properties": {"name": {"type": "string"}}}
            llm.generate(text, SamplingParams(structured_outputs=StructuredOutputsParams(json=pet)))

        Raises:
            RequestError: a prompt or an option cannot be served; names the field.
        """
        several = with_adapters(as_prompts(prompts), lora_request)
        return self._run(several, sampling_params, use_tqdm, priority)

    def enqueue(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        sampling_params: Params = None,
        *,
        lora_request: Adapters = None,
        priority: Priority = 0,
    ) -> list[str]:
        """Queue prompts as for `generate`, and return their ids at once. They run while
        `wait_for_completion` waits, or beside the prompts of any other call.

        Raises:
            RequestError: a prompt or an option cannot be served; none of these is queued then.
        """
        several, call = with_adapters(as_prompts(prompts), lora_request), Call(self._loop)
        each = params_of(sampling_params, len(several), self._defaults)
        try:
            call.add_all(several, each, priority)
        except BaseException:
            call.close()
            raise
        self._queued.append(call)
        return list(call.outputs)

    def wait_for_completion(self, *, use_tqdm: bool = True) -> list[RequestOutput]:
        """Run what was queued to its end; the outputs are in the order in which it was queued.

        Raises:
            RequestError: the engine sleeps; what was queued stays so.
        """
        for call in self._queued:
            call.check_awake()
        calls, self._queued = self._queued, []
        try:
            return finished(calls, use_tqdm)
        finally:
            for call in calls:
                call.close()

    def beam_search(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        params: BeamSearchParams,
        *,
        use_tqdm: bool = True,
        lora_request: Adapters = None,
        priority: Priority = 0,
    ) -> list[BeamSearchOutput]:
        """The `beam_width` best continuations of each prompt, as transformers finds them.

        The model's sampling defaults do not apply. Sequences hold prompt and continuation, as in
        vLLM, and an end of text, as in transformers; their `logprobs` list the likeliest
        `2 * beam_width` tokens at each position, up to 20.

        Raises:
            RequestError: a prompt or an option cannot be served; names the field.
        """
        if not isinstance(params, BeamSearchParams):
            raise RequestError("params must be BeamSearchParams.", "params")
        shown = SamplingParams(
            n=params.beam_width,
            temperature=0,
            max_tokens=params.max_tokens,
            logprobs=min(2 * params.beam_width, MAX_LOGPROBS),
        )
        several = with_adapters(as_prompts(prompts), lora_request)
        found = self._run(several, shown, use_tqdm, priority, params)
        return [BeamSearchOutput.of(output, self.get_tokenizer()) for output in found]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: Params = None,
        *,
        use_tqdm: bool = True,
        lora_request: Adapters = None,
        add_generation_prompt: bool = True,
        tools: list[dict[str, Any]] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of several.

        Names of special tokens in its texts are text; write the prompt with them and call
        `generate` to have the tokens.
        """
        several = bool(messages) and not isinstance(messages[0], dict)
        chats: Any = messages if several else [messages]
        options: dict[str, Any] = {
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            "variables": chat_template_kwargs,
        }
        prompts = [self._render(chat, **options) for chat in chats]
        return self._run(with_adapters(prompts, lora_request), sampling_params, use_tqdm, 0)

    def stream(
        self,
        prompt: PromptLike,
        sampling_params: SamplingParams | None = None,
        *,
        lora_request: LoRARequest | None = None,
    ) -> Iterator[OutputDelta]:
        """Continue one prompt, piece by piece: `for piece in llm.stream("Hi"): piece.text`."""
        [one] = with_adapters([as_prompt(prompt)], lora_request)
        return self._stream(one, sampling_params)

    def stream_chat(
        self,
        messages: Sequence[Message],
        sampling_params: SamplingParams | None = None,
        *,
        lora_request: LoRARequest | None = None,
        tools: list[dict[str, Any]] | None = None,
    ) -> Iterator[OutputDelta]:
        """Answer one conversation, piece by piece."""
        [one] = with_adapters([self._render(messages, tools=tools)], lora_request)
        return self._stream(one, sampling_params)

    def state(self, text: str = "", *, messages: Sequence[Message] | None = None) -> State:
        """A text that grows by `gen`, `choice` and forks: see `engine.language`.

        It begins with `text`, behind the conversation that `messages` are, up to where the
        model's answer begins.

        Raises:
            RequestError: the model has no chat template, or the messages do not fit it.
        """
        backend = LocalBackend(self._loop, self._defaults)
        return State(backend, text, chat=None if messages is None else self._rendered(messages))

    def embed(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        *,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[EmbeddingRequestOutput]:
        """A vector for each prompt; `truncate_prompt_tokens` -1 cuts prompts to what fits.

        Raises:
            RequestError: a prompt or an option cannot be served, or the model gives no embeddings.
        """
        params = pooling_params or PoolingParams()
        return self._pooler.embed(as_prompts(prompts), params, truncate_prompt_tokens)

    def classify(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        *,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[ClassificationRequestOutput]:
        """The probabilities of the classes for each prompt; raises as `embed`."""
        params = pooling_params or PoolingParams()
        return self._pooler.classify(as_prompts(prompts), params, truncate_prompt_tokens)

    def encode(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        pooling_params: PoolingParams | None = None,
        *,
        truncate_prompt_tokens: int | None = None,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """Whatever the model gives for each prompt, as an array; raises as `embed`."""
        params = pooling_params or PoolingParams()
        return self._pooler.encode(as_prompts(prompts), params, truncate_prompt_tokens)

    def reward(
        self,
        prompts: PromptLike | Sequence[PromptLike],
        *,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[PoolingRequestOutput[PoolingOutput]]:
        """The scores of each token or step of each prompt, of a reward model; raises as `embed`."""
        params = pooling_params or PoolingParams()
        return self._pooler.reward(as_prompts(prompts), params, truncate_prompt_tokens)

    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        *,
        pooling_params: PoolingParams | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[ScoringRequestOutput]:
        """How well texts go together: one with each of several, or as many with as many."""
        first, second = texts_of(data_1, "data_1"), texts_of(data_2, "data_2")
        params = pooling_params or PoolingParams()
        return self._pooler.score(first, second, params, truncate_prompt_tokens)

    def get_tokenizer(self) -> Tokenizer | None:
        """The model's tokenizer; None if the folder has none."""
        return self._tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What applies where a call gives none: the model's generation_config.json."""
        return self._defaults

    @property
    def core(self) -> EngineCore:
        """The engine below: `core.info`, `core.stats` and its cache, for those who want to look."""
        if isinstance(self._core, EngineCore):
            return self._core
        raise RequestError(
            f"The model {str(self.model)!r} gives vectors and writes no text; use embed(), "
            "classify(), score() or encode(), or runner='generate' if it can write."
        )

    @property
    def pooling_core(self) -> PoolingCore:
        """The same of a model that gives vectors; raises RequestError for others."""
        return self._pooler.core

    @property
    def info(self) -> ModelInfo:
        """What is served: sizes, classes, limits, and how long the start took."""
        return self._core.info

    def close(self) -> None:
        """Stop background work; the model cannot be used afterwards."""
        self._profiler.close()
        self._grammars.close()
        self._core.close()

    def __enter__(self) -> "LLM":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return described(self.model, self._core.info)

    @cached_property
    def _loop(self) -> Loop:
        return Loop(self.core, self._tokenizer, self._grammars, self._profiler, self._reasoning)

    @cached_property
    def _pooler(self) -> Pooler:
        if isinstance(self._core, EngineCore):
            check_task(self._core.info, "pool")
            raise TypeError("an engine that writes text has no pooler")
        return Pooler(self._core, self._tokenizer, self._profiler)

    def _run(
        self,
        prompts: list[Prompt],
        sampling_params: Params,
        use_tqdm: bool,
        priority: Priority,
        beams: BeamSearchParams | None = None,
    ) -> list[RequestOutput]:
        each = params_of(sampling_params, len(prompts), self._defaults)
        with Call(self._loop) as call:
            call.add_all(prompts, each, priority, beams)
            return finished([call], use_tqdm)

    def _stream(self, prompt: Prompt, params: SamplingParams | None) -> Iterator[OutputDelta]:
        with Call(self._loop) as call:
            call.add(prompt, params or self._defaults)
            yield from call.deltas()

    def _render(self, messages: Sequence[Message], **options: Any) -> Prompt:
        rendered = self._rendered(messages, **options)
        return Prompt(rendered.text, chat=True, marked=rendered.marked)

    def _rendered(self, messages: Sequence[Message], **options: Any) -> Rendered:
        if self._template is None:
            raise RequestError(
                f"The model {str(self.model)!r} has no chat template; pass chat_template, or use "
                "generate() with a plain prompt.",
                "messages",
            )
        if not messages:
            raise RequestError("messages must hold at least one message.", "messages")
        return self._template.write(list(messages), **options)
