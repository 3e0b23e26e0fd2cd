"""States of a model in this process: their requests run in the loop that `LLM` turns."""

from collections import deque
from dataclasses import dataclass, field

from msgspec.structs import replace

from engine.calls import Inbox, Loop
from engine.errors import RequestError
from engine.language.backend import Answer, Ask, Score, Scored, Write, first_scored
from engine.language.parts import Likelihood, Written
from engine.outputs import RequestOutput
from engine.prompts import Prompt
from engine.sampling.params import SamplingParams
from engine.tokenizers.token_guard import escaped

_SCORING = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)


@dataclass
class _Asked:
    """An ask, and the requests that answer it together."""

    key: int
    first: int = 0  # token that is scored
    outputs: list[RequestOutput] = field(default_factory=list)
    unfinished: int = 0


class LocalBackend:
    """The engine's loop, and what applies where a `gen` says nothing."""

    def __init__(self, loop: Loop, defaults: SamplingParams) -> None:
        self._loop = loop
        self._defaults = defaults

    def requests(self) -> "LocalRequests":
        return LocalRequests(self._loop, self._defaults)


class LocalRequests:
    """Requests that share the engine's steps."""

    def __init__(self, loop: Loop, defaults: SamplingParams) -> None:
        self._loop = loop
        self._defaults = defaults
        self._inbox: Inbox = deque()
        self._asked: dict[str, tuple[_Asked, RequestOutput]] = {}  # by request id

    def start(self, key: int, ask: Ask) -> None:
        """Begin with a request; raises RequestError."""
        asked = _Asked(key)
        try:
            if isinstance(ask, Write):
                params = replace(self._defaults, **ask.options)
                self._add(asked, Prompt(ask.prompt, chat=ask.chat, marked=ask.marked), params)
            else:
                self._score(asked, ask)
        except RequestError:
            self._forget(asked)
            raise

    def turn(self) -> list[tuple[int, Answer]]:
        """One step of the engine."""
        self._loop.turn(self._inbox)
        answers: list[tuple[int, Answer]] = []
        while self._inbox:
            delta = self._inbox.popleft()
            asked, output = self._asked[delta.request_id]
            output.accumulate(delta)
            if output.finished:
                asked.unfinished -= 1
                if not asked.unfinished:
                    answers.append((asked.key, self._answer(asked)))
        return answers

    def __enter__(self) -> "LocalRequests":
        return self

    def __exit__(self, *_: object) -> None:
        for request_id in self._asked:
            self._loop.abort(request_id)

    def _score(self, asked: _Asked, ask: Score) -> None:
        if self._loop.tokenizer is None:
            raise RequestError("A choice needs a model with a tokenizer.", "choices")
        prompt = self._prompt(ask, "").token_ids(self._loop.tokenizer)
        texts = [self._prompt(ask, one).token_ids(self._loop.tokenizer) for one in ask.choices]
        asked.first = first_scored(prompt, texts)
        params = replace(_SCORING, prompt_logprobs_start=asked.first)
        for ids in texts:
            self._add(asked, Prompt(ids=ids), params)

    @staticmethod
    def _prompt(ask: Score, choice: str) -> Prompt:
        marked = None if ask.marked is None else ask.marked + escaped(choice)
        return Prompt(ask.prompt + choice, chat=ask.chat, marked=marked)

    def _add(self, asked: _Asked, prompt: Prompt, params: SamplingParams) -> None:
        output = self._loop.add(prompt, params, 0, self._inbox)
        asked.outputs.append(output)
        asked.unfinished += 1
        self._asked[output.request_id] = asked, output

    def _forget(self, asked: _Asked) -> None:
        for output in asked.outputs:
            self._loop.abort(output.request_id)
            del self._asked[output.request_id]

    def _answer(self, asked: _Asked) -> Answer:
        self._forget(asked)
        for output in asked.outputs:
            [completion] = output.outputs
            if completion.error is not None:
                return RequestError(completion.error, completion.error_param)
        counts = (
            sum(len(output.prompt_token_ids) for output in asked.outputs),
            sum(output.num_cached_tokens for output in asked.outputs),
        )
        if asked.first:
            return Scored([_likelihood(each, asked.first) for each in asked.outputs], *counts)
        [completion] = asked.outputs[0].outputs
        reason = completion.finish_reason or "stop"
        tokens = len(completion.token_ids)
        return Written(completion.text, tokens, reason, completion.stop_reason, *counts)


def _likelihood(output: RequestOutput, first: int) -> Likelihood:
    ids, positions = output.prompt_token_ids[first:], (output.prompt_logprobs or [])[first:]
    found = [at[token].logprob for token, at in zip(ids, positions, strict=True) if at is not None]
    return Likelihood(sum(found), len(found))
