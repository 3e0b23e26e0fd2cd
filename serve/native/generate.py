"""POST /generate: SGLang's own API, with token ids in and out.

The request is one to `/v1/completions` in other words, or several with options of their own; so
are its checks and its work. How it is answered is `serve.native.generate_view`'s.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace as replaced
from starlette.types import Scope, Send

from engine.errors import RequestError
from serve.engine_client import Prompt
from serve.generation.logprobs import aside
from serve.generation.prompt_embeds import listed
from serve.generation.streams import collect
from serve.http.endpoint import GenerationRoute, send_json
from serve.http.sse import DATA_ONLY, send_events
from serve.native.flat_logprobs import Flat
from serve.native.generate_view import GenerateView, Scored
from serve.native.hidden_states import check_size
from serve.native.sampling_mask import LogprobsMode, check_mask, told_by, with_mask
from serve.native.session_turns import HeardView, ids_of, own_turn
from serve.native.sessions import SessionParams, Turn
from serve.openai.completions import completion_prompts
from serve.protocol.completions import CompletionRequest, TextOrIds
from serve.protocol.decoding import MAX_PROMPTS, CheckedRequest, WatermarkWish, check_states

DEFAULT_NEW_TOKENS = 128
_NAMES = MappingProxyType(
    {
        "max_tokens": "max_new_tokens",
        "min_tokens": "min_new_tokens",
        "seed": "sampling_seed",
        "logprobs": "top_logprobs_num",
        "prompt_logprobs": "top_logprobs_num",
        "prompt_logprobs_start": "logprob_start_len",
        "logprob_token_ids": "token_ids_logprob",
        "thinking_token_budget": "max_thinking_tokens",
    }
)


_OF_LOGPROBS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "logprob_start_len": (None, -1),
        "top_logprobs_num": (None, 0),
        "token_ids_logprob": (None, []),
        "return_text_in_logprobs": (None, False),
        "return_flat_raw_top_logprobs": (None, False),
        "return_flat_raw_output_top_logprobs": (None, False),
    }
)


class GenerateParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SGLang's names of sampling options; None always means "as if it were not sent"."""

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: str | list[str] | None = None
    stop_regex: str | list[str] | None = None
    no_stop_trim: bool | None = None
    stop_token_ids: list[int] | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    n: int | None = None
    sampling_seed: int | None = None
    json_schema: str | None = None
    regex: str | None = None
    ebnf: str | None = None
    structural_tag: str | None = None
    stream_interval: int | None = None
    custom_params: dict[str, Any] | None = None  # of logits processors
    beam_width: Literal[1] | None = None
    watermark: WatermarkWish | None = None


class GenerateRequest(CheckedRequest, frozen=True, kw_only=True):
    """A text, ids or embeddings, or a list of these; sampling options for all, or for each."""

    needs = (("text",), ("input_ids",), ("input_embeds",))
    text: str | list[str] | None = None
    input_ids: list[int | list[int]] | None = None
    input_embeds: list[list[float | list[float]]] | None = None
    sampling_params: GenerateParams | list[GenerateParams] = GenerateParams()
    return_logprob: bool | None = None
    logprob_start_len: int | None = None  # the first token of the prompt to score; -1: none
    top_logprobs_num: int | None = None
    token_ids_logprob: list[int] | None = None  # tokens to score at each position
    return_text_in_logprobs: bool | None = None
    # the likeliest of the prompt, and of a whole answer, as `serve.native.flat_logprobs` has them
    return_flat_raw_top_logprobs: bool | None = None
    return_flat_raw_output_top_logprobs: bool | None = None
    return_flat_raw_top_logprobs_b64: bool | None = None
    return_hidden_states: bool | None = None  # of the prompt, and of all tokens but the last
    return_routed_experts: bool | None = None  # with the end of an answer
    routed_experts_start_len: int | None = None  # the first token whose experts are told
    return_sampling_mask: bool | None = None  # what tokens were drawn among
    sampling_logprobs_mode: LogprobsMode | None = None  # None: "selected"
    stream: bool | None = None
    rid: str | None = None
    priority: int | None = None
    cache_salt: str | None = None
    extra_key: str | None = None
    lora_path: str | list[str | None] | None = None  # names of adapters: of all, or of each
    session_params: SessionParams | None = None  # of one prompt that goes on where another ended
    session_id: str | None = None  # as in the chat API
    max_thinking_tokens: int | None = None
    return_prompt_token_ids: bool | None = None
    watermark: WatermarkWish | None = None  # of all; sampling_params may have one

    @property
    def prompts(self) -> TextOrIds | list[TextOrIds]:
        """Texts or ids; None where they are embeddings."""
        return self.text if self.text is not None else self.input_ids  # type: ignore[return-value]

    @property
    def embeds(self) -> list[Any]:
        """Prompts that are embeddings, each a list of a token's numbers."""
        if self.input_embeds is None:
            return []
        first = next(iter(self.input_embeds[0]), 0.0)
        return self.input_embeds if isinstance(first, list) else [self.input_embeds]

    @property
    def options(self) -> list[GenerateParams]:
        """Those of each prompt, or those of all."""
        given = self.sampling_params
        return given if isinstance(given, list) else [given]

    @property
    def listed(self) -> bool:
        """Whether there may be several prompts."""
        if self.input_embeds is not None:
            return self.embeds is self.input_embeds
        return isinstance(self.prompts, list) and not isinstance(self.prompts[0], int)

    @property
    def apart(self) -> bool:
        """Whether each prompt has options, or an adapter, of its own."""
        return isinstance(self.sampling_params, list) or isinstance(self.lora_path, list)

    @property
    def many(self) -> bool:
        """Whether the answer is a list."""
        return self.listed or (self.options[0].n or 1) > 1

    @property
    def scored(self) -> Scored | None:
        """Which log-probabilities are shown, if any are."""
        if not self.return_logprob:
            return None
        return Scored(
            start=-1 if self.logprob_start_len is None else self.logprob_start_len,
            top=self.top_logprobs_num or 0,
            named=self.token_ids_logprob or (),
            texts=bool(self.return_text_in_logprobs),
            flat=Flat(
                bool(self.return_flat_raw_top_logprobs),
                bool(self.return_flat_raw_output_top_logprobs),
                bool(self.return_flat_raw_top_logprobs_b64),
            ),
        )

    def check_shared(self) -> None:
        prompts = {name: getattr(self, name) for [name] in self.needs}
        sent = [name for name, value in prompts.items() if value is not None]
        if len(sent) != 1:
            raise RequestError("Send one of text, input_ids and input_embeds.", "text")
        if prompts[sent[0]] == []:
            raise RequestError("The prompt is empty.", sent[0])
        if isinstance(self.sampling_params, list):
            self._check_options(self.sampling_params)
        if isinstance(self.lora_path, list):
            self._check_listed("lora_path", len(self.lora_path))
        for name, nothing in _OF_LOGPROBS.items():
            if not self.return_logprob and getattr(self, name) not in nothing:
                raise RequestError(f"{name} needs return_logprob.", name)
        self._check_scored()
        check_mask(self.return_sampling_mask, self.sampling_logprobs_mode)
        if self.return_prompt_token_ids and self.input_embeds is not None:
            raise RequestError(
                "return_prompt_token_ids tells of tokens, and input_embeds has none.",
                "return_prompt_token_ids",
            )
        if self.return_hidden_states:
            check_states(self.stream)
        if self.session_params is not None and (self.many or self.input_embeds is not None):
            raise RequestError(
                "session_params is of one text or of its ids, once.", "session_params"
            )

    def _check_options(self, each: list[GenerateParams]) -> None:
        self._check_listed("sampling_params", len(each))
        if len({one.n or 1 for one in each}) > 1:
            raise RequestError("All sampling_params must have the same n.", "sampling_params")

    def _check_listed(self, name: str, count: int) -> None:
        if not self.listed or count != len(self.embeds or self.prompts):
            raise RequestError(f"A list of {name} goes with a list of as many prompts.", name)
        if count > MAX_PROMPTS:
            raise RequestError(f"There may be at most {MAX_PROMPTS} prompts.", name)

    def _check_scored(self) -> None:
        if self.token_ids_logprob and self.top_logprobs_num:
            raise RequestError(
                "token_ids_logprob and top_logprobs_num exclude each other.", "token_ids_logprob"
            )
        self._check_flat()
        start = self.logprob_start_len
        if self.input_embeds is not None and start not in (None, -1):
            raise RequestError(
                "logprob_start_len scores tokens, and input_embeds has none.", "logprob_start_len"
            )
        if start is not None and start < -1:
            raise RequestError("logprob_start_len must be at least -1.", "logprob_start_len")
        if self.token_ids_logprob and start not in (None, -1):
            raise RequestError(
                "token_ids_logprob is of what is generated; leave out logprob_start_len.",
                "logprob_start_len",
            )

    def _check_flat(self) -> None:
        flat = [
            name
            for name in ("return_flat_raw_top_logprobs", "return_flat_raw_output_top_logprobs")
            if getattr(self, name)
        ]
        if flat and not self.top_logprobs_num:
            raise RequestError(f"{flat[0]} needs top_logprobs_num.", flat[0])
        if self.return_flat_raw_top_logprobs and self.logprob_start_len in (None, -1):
            raise RequestError(
                "return_flat_raw_top_logprobs is of the prompt; send logprob_start_len, 0 or more.",
                "return_flat_raw_top_logprobs",
            )
        if self.return_flat_raw_output_top_logprobs and self.stream:
            raise RequestError(
                "return_flat_raw_output_top_logprobs cannot be streamed.",
                "return_flat_raw_output_top_logprobs",
            )
        if self.return_flat_raw_top_logprobs_b64 and not flat:
            raise RequestError(
                "return_flat_raw_top_logprobs_b64 needs return_flat_raw_top_logprobs or "
                "return_flat_raw_output_top_logprobs.",
                "return_flat_raw_top_logprobs_b64",
            )

    def as_completions(self) -> list[CompletionRequest]:
        """The same in the words of the completions API: one request, or one for each prompt where
        these have options or adapters of their own; raises RequestError."""
        given, adapters = self.sampling_params, self.lora_path
        if not self.apart:
            return [self._completion(self.prompts, given, adapters)]  # type: ignore[arg-type]
        prompts = self.prompts or [None] * len(self.embeds)
        options = given if isinstance(given, list) else [given] * len(prompts)
        names = adapters if isinstance(adapters, list) else [adapters] * len(prompts)
        return [
            self._completion(prompt, each, name)  # type: ignore[arg-type]
            for prompt, each, name in zip(prompts, options, names, strict=True)
        ]

    def _completion(
        self, prompt: TextOrIds | list[TextOrIds], params: GenerateParams, lora_path: str | None
    ) -> CompletionRequest:
        options = msgspec.structs.asdict(params)
        scored = self.scored
        scores_prompt = scored is not None and scored.start >= 0
        new, seed = options.pop("max_new_tokens"), options.pop("sampling_seed")
        del options["beam_width"]  # the completions API searches beams
        own = options.pop("watermark")
        if own is not None and self.watermark is not None:
            raise RequestError("watermark is in sampling_params, too; send one.", "watermark")
        least, tag = options.pop("min_new_tokens"), options.pop("structural_tag")
        completion = CompletionRequest(
            prompt=prompt,  # type: ignore[arg-type]
            max_tokens=new,
            min_tokens=least,
            seed=seed,
            structured_outputs=None if tag is None else {"structural_tag": tag},
            logprobs=scored.top if scored else None,
            logprob_token_ids=self.token_ids_logprob or None,
            prompt_logprobs=scored.top if scored and scores_prompt else None,
            prompt_logprobs_start=scored.start if scored and scores_prompt else None,
            return_routed_experts=self.return_routed_experts,
            routed_experts_start_len=self.routed_experts_start_len,
            priority=self.priority,
            cache_salt=self.cache_salt,
            lora_path=lora_path,
            session_id=self.session_id,
            thinking_token_budget=self.max_thinking_tokens,
            rid=self.rid,
            watermark=self.watermark if own is None else own,
            **options,
        )
        completion.check_shared()
        return completion


class GenerateRoute(GenerationRoute[GenerateRequest]):
    """Ids in, ids out."""

    kind = GenerateRequest

    def names(self, request: GenerateRequest) -> Mapping[str, str]:
        return {
            **_NAMES,
            "prompt": "input_ids" if request.text is None else "text",
            "prompt_embeds": "input_embeds",
        }

    async def serve(self, request: GenerateRequest, scope: Scope, send: Send) -> None:
        request_id: str = scope["state"]["request_id"]
        if request.session_params is None:
            await self.answer(request, request_id, send)
            return
        name, ids = request.rid or request_id, await ids_of(self.service, request.prompts)  # type: ignore[arg-type]
        with own_turn(self.service, scope, request.session_params, name, ids) as turn:
            whole = replaced(request, text=None, input_ids=turn.prompt.tolist())
            await self.answer(whole, request_id, send, turn)

    async def answer(
        self, request: GenerateRequest, request_id: str, send: Send, turn: Turn | None = None
    ) -> None:
        prompts = await self._prompts(request)
        view = GenerateView(
            prompts,
            request.rid or request_id,
            request.scored,
            self.service.model.tokenizer,
            indexed=request.many,
            with_prompts=bool(request.return_prompt_token_ids),
            masks=told_by(request.return_sampling_mask, request.sampling_logprobs_mode),
            stats=lambda: self.service.client.stats,
        )
        shown = view if turn is None else HeardView(view, turn)
        priority = request.priority or 0
        wanted = max(options.stream_interval or 1 for options in request.options)
        interval = self.service.stream_interval(request.stream, wanted)
        with self.service.client.generate(
            request_id, prompts, priority, interval, request.rid
        ) as stream:
            if request.stream:
                await send_events(send, stream, shown, DATA_ONLY)
                return
            deltas = await collect(stream)
            whole = partial(shown.whole, deltas)
            states = request.return_hidden_states  # many numbers to write
            answers = await (asyncio.to_thread(whole) if states else aside(whole, deltas))
        await send_json(send, answers if request.many else answers[0])

    async def _prompts(self, request: GenerateRequest) -> list[Prompt]:
        found: list[Prompt] = []
        embeds = request.embeds and await listed(request.embeds, self.service.client.info)
        for place, completion in enumerate(request.as_completions()):
            own = embeds[place : place + 1] if request.apart else embeds
            found += await completion_prompts(
                self.service, completion, default=DEFAULT_NEW_TOKENS, embeds=own
            )
        if request.return_hidden_states:
            check_size(found, self.service.client.info)
            found = [replace(prompt, hidden="all") for prompt in found]
        if request.return_sampling_mask:
            info = self.service.client.info
            found = [replace(each, params=with_mask(each.params, info)) for each in found]
        if not request.return_routed_experts:
            found = [replace(prompt, routed=None) for prompt in found]
        start = request.logprob_start_len or 0
        if len(found) * found[0].params.n > MAX_PROMPTS:
            raise RequestError(f"n times the number of prompts may be at most {MAX_PROMPTS}.", "n")
        if any(start >= len(prompt.token_ids) for prompt in found):
            raise RequestError(
                f"logprob_start_len {str(start)[:40]} is behind the end of a prompt.",
                "logprob_start_len",
            )
        return found
