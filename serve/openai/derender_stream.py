"""Derendering piece by piece: a chunk of `/inference/v1/generate` becomes one of a chat or of a
completion.

    {"stream": true, "chat_request": {...},
     "generate_chunk": {"choices": [{"index": 0, "token_ids": [...]}]}, "stream_state": null}
    {"chunk": {...}, "stream_state": {...}}       which the next chunk of that choice brings along

The server keeps nothing: what was said before comes with each chunk, goes once more through what
makes texts of it, and what the newest piece adds is shown.
"""

from collections.abc import Iterator

from msgspec import UNSET, Struct, structs

from engine.errors import RequestError
from engine.outputs import OutputDelta
from serve.engine_client import Prompt
from serve.openai.chat_view import ChatView
from serve.openai.completion_view import CompletionView
from serve.openai.given_tokens import GivenAnswers, GivenChoice, GivenChunk
from serve.protocol.chat import ChatChunk, ChunkChoice, Delta
from serve.protocol.completions import Completion, CompletionChoice
from serve.service import Service


class StreamState(Struct, frozen=True):
    """What was given of one choice so far."""

    pieces: list[GivenChoice] = []


class ChatPiece(Struct):
    """A chunk of a chat, and what is to come with the next one."""

    chunk: ChatChunk
    stream_state: StreamState


class CompletionPiece(Struct):
    """The same of a completion."""

    chunk: Completion
    stream_state: StreamState


def chat_piece(
    service: Service, prompt: Prompt, view: ChatView, given: GivenChunk, state: StreamState | None
) -> ChatPiece:
    """Raises RequestError for what does not go on with `state`."""
    pieces, shown = _with_newest(given, state), list[ChatChunk]()
    for deltas in _read(service, prompt, given, pieces):
        shown = list(view.of(deltas))
    empty = view.chunk([ChunkChoice(each.index, Delta()) for each in given.choices], UNSET)
    return ChatPiece(_joined(shown) if shown else empty, StreamState(pieces))


def completion_piece(
    service: Service,
    prompt: Prompt,
    view: CompletionView,
    given: GivenChunk,
    state: StreamState | None,
) -> CompletionPiece:
    """Raises RequestError for what does not go on with `state`."""
    pieces, shown = _with_newest(given, state), list[Completion]()
    for deltas in _read(service, prompt, given, pieces):
        shown = list(view.of(deltas))
    empty = view.chunk([CompletionChoice(each.index, "") for each in given.choices], UNSET)
    return CompletionPiece(shown[0] if shown else empty, StreamState(pieces))


def _with_newest(given: GivenChunk, state: StreamState | None) -> list[GivenChoice]:
    pieces = [*(state.pieces if state else []), *given.choices]
    if len(given.choices) > 1:
        raise RequestError("A chunk has one choice at most.", "generate_chunk")
    if len({piece.index for piece in pieces}) > 1:
        raise RequestError("stream_state is of another choice.", "stream_state")
    if any(piece.finish_reason for piece in pieces[:-1]):
        raise RequestError("stream_state is of a choice that has ended.", "stream_state")
    return pieces


def _read(
    service: Service, prompt: Prompt, given: GivenChunk, pieces: list[GivenChoice]
) -> Iterator[dict[int, OutputDelta]]:
    """What each piece adds, if a piece is new."""
    if given.choices:
        yield from map(GivenAnswers(service, prompt).read, pieces)


def _joined(chunks: list[ChatChunk]) -> ChatChunk:
    """One chunk of one choice that says all that these say of it."""
    whole, *rest = chunks
    for chunk in rest:
        [choice], [more] = whole.choices, chunk.choices
        for name, value in structs.asdict(more.delta).items():
            before = getattr(choice.delta, name)
            if value is not UNSET:
                setattr(choice.delta, name, value if before is UNSET else before + value)
        for name in ("logprobs", "finish_reason", "stop_reason", "matched_stop", "token_ids"):
            value = getattr(more, name)
            if value is not None and value is not UNSET:
                setattr(choice, name, value)
    return whole
