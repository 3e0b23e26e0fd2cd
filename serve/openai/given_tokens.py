"""Answers in token ids, read as if the engine had just said them.

Owns what such an answer may hold. Knows nothing of chats and completions.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import RequestError
from engine.messages import EngineStats, RequestDelta, StepReport, TokenLogprobs
from engine.output_processor import OutputProcessor
from engine.outputs import OutputDelta
from serve.engine_client import Prompt
from serve.errors import error_of
from serve.generation.prompts import check_ids
from serve.protocol.chat import ChatLogprobs
from serve.protocol.decoding import Usage
from serve.service import Service

_ID = "token_id:"


class GivenChoice(Struct, frozen=True, kw_only=True):
    """One answer in token ids."""

    index: int = 0
    token_ids: list[int]
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length", "abort", "repetition"] | None = None


class GivenResponse(Struct, frozen=True, kw_only=True):
    """What `/inference/v1/generate` answered; what is not needed of it may be there."""

    request_id: str | None = None
    choices: list[GivenChoice]


class GivenChunk(Struct, frozen=True, kw_only=True):
    """What it answered in one event: a piece of one choice, or counts."""

    request_id: str | None = None
    choices: list[GivenChoice]
    usage: Usage | None = None


class GivenAnswers:
    """The answers to one prompt, each whole or piece by piece."""

    def __init__(self, service: Service, prompt: Prompt) -> None:
        self._service, self._prompt = service, prompt
        self._processor = OutputProcessor(service.model.tokenizer)
        begun = self._processor.add("0", prompt.token_ids, prompt.params, grammar=prompt.grammar)
        self._ids = [each for request in begun for each in request.sequences]
        self._counts = [0] * len(self._ids)

    def read(self, piece: GivenChoice) -> dict[int, OutputDelta]:
        """What the next piece of an answer adds, by its index; nothing behind an end.

        Raises RequestError for a piece that is none of these answers'.
        """
        index, count = piece.index, len(self._ids)
        if not 0 <= index < count:
            raise RequestError(f"index is 0 to {count - 1}, for n is {count}.", "generate_chunk")
        self._counts[index] += len(piece.token_ids)
        _check_count(self._service, self._counts[index])
        delta = _delta(self._service, self._prompt, self._ids[index], piece)
        outputs = self._processor.process(StepReport(deltas=[delta], stats=EngineStats())).outputs
        for output in outputs:
            if output.finish_reason == "error":
                raise error_of(output)
        return {output.index: output for output in outputs}


def read_again(
    service: Service, prompts: Sequence[Prompt], given: Sequence[GivenResponse]
) -> dict[int, OutputDelta]:
    """What the engine said, from its token ids: choice p * n + i is answer i to prompt p.

    Raises RequestError for answers that are none to these prompts.
    """
    found: dict[int, OutputDelta] = {}
    for place, (prompt, response) in enumerate(zip(prompts, given, strict=True)):
        count = prompt.params.n
        if sorted(choice.index for choice in response.choices) != list(range(count)):
            raise RequestError(
                f"A response must have choices 0 to {count - 1}, once each, for n is {count}.",
                "generate_response",
            )
        answers = GivenAnswers(service, prompt)
        for choice in response.choices:
            whole = replace(choice, finish_reason=choice.finish_reason or "length")
            for index, output in answers.read(whole).items():
                found[place * count + index] = output
    return found


def _delta(service: Service, prompt: Prompt, engine_id: int, choice: GivenChoice) -> RequestDelta:
    """One answer, as the engine tells it in one step."""
    info, ids = service.client.info, choice.token_ids
    if ids:
        check_ids(ids, info.vocab_size, "token_ids")
    ended = choice.finish_reason == "stop" and bool(ids)
    named = ended and ids[-1] in (prompt.params.stop_token_ids or ())
    by_token = ended and (named or ids[-1] in info.eos_token_ids)
    return RequestDelta(
        request_id=engine_id,
        new_token_ids=ids,
        finish_reason=choice.finish_reason,
        complete=choice.finish_reason is not None and not by_token,
        stop_token_id=ids[-1] if named and ids[-1] not in info.eos_token_ids else None,
        logprobs=_logprobs(prompt, choice),
    )


def _check_count(service: Service, count: int) -> None:
    most = service.client.info.max_model_len
    if count > most:
        raise RequestError(f"An answer has at most {most} tokens, got {count}.", "token_ids")


def _logprobs(prompt: Prompt, choice: GivenChoice) -> list[TokenLogprobs] | None:
    """Raises RequestError for none where they are wanted, or other ones than of the tokens."""
    wanted = prompt.params.logprobs is not None or prompt.params.logprob_token_ids is not None
    if not wanted:
        return None
    said = choice.logprobs.content if choice.logprobs else []
    if len(said) != len(choice.token_ids):
        raise RequestError(
            "logprobs are asked for, so each of token_ids needs one of its own.", "logprobs"
        )
    found = []
    for token_id, entry in zip(choice.token_ids, said, strict=True):
        ids = [_token_id(top.token) for top in entry.top_logprobs]
        rank = (ids.index(token_id) if token_id in ids else len(ids)) + 1
        scores = [entry.logprob, *(top.logprob for top in entry.top_logprobs)]
        found.append(TokenLogprobs([token_id, *ids], scores, rank))
    return found


def _token_id(token: str) -> int:
    number = token.removeprefix(_ID)
    if number == token or not number.isascii() or not number.isdigit() or len(number) > 9:
        raise RequestError(f"logprobs must name tokens as {_ID}5, got {token[:40]!a}.", "logprobs")
    return int(number)
