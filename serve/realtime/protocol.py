"""What is said on `/v1/realtime`: vLLM's events, one in each message, as JSON.

> {"type": "session.update", "model": "whisper"}
> {"type": "input_audio_buffer.commit"}                        an utterance begins
> {"type": "input_audio_buffer.append", "audio": "AAD/fw.."}   16 kHz, mono, 16 bits, base64
< {"type": "transcription.delta", "delta": " I have"}
> {"type": "input_audio_buffer.commit", "final": true}         it has ended
< {"type": "transcription.done", "text": "I have a dream.", "usage": {...}}
"""

from typing import Literal

from msgspec import Struct

from serve.audio.protocol import Seconds


class SessionUpdate(
    Struct, tag_field="type", tag="session.update", frozen=True, forbid_unknown_fields=True
):
    """How to hear from the next utterance on; a language that is left out is found."""

    model: str | None = None
    language: str | None = None
    event_id: str | None = None


class Append(
    Struct,
    tag_field="type",
    tag="input_audio_buffer.append",
    frozen=True,
    forbid_unknown_fields=True,
):
    """More audio, which may come before the utterance is begun."""

    audio: bytes
    event_id: str | None = None


class Commit(
    Struct,
    tag_field="type",
    tag="input_audio_buffer.commit",
    frozen=True,
    forbid_unknown_fields=True,
):
    """Begin to hear, which changes nothing where that has begun; `final`: and end the utterance."""

    final: bool = False
    event_id: str | None = None


ClientEvent = SessionUpdate | Append | Commit


class SessionCreated(Struct, kw_only=True):
    """The connection is there."""

    type: Literal["session.created"] = "session.created"
    id: str
    created: int


class TranscriptionDelta(Struct, kw_only=True):
    """More text."""

    type: Literal["transcription.delta"] = "transcription.delta"
    delta: str


class TranscriptionDone(Struct, kw_only=True):
    """All of an utterance."""

    type: Literal["transcription.done"] = "transcription.done"
    text: str
    usage: Seconds


class ErrorEvent(Struct, kw_only=True):
    """What was wrong; the connection goes on."""

    type: Literal["error"] = "error"
    error: str
    code: str
