"""One connection: audio comes in, and utterances are heard one after the other.

    append ─> recording ─ window after window ─> engine ─> transcription.delta .. done

The models that are served here hear windows (30 seconds of Whisper's), and where the next begins
is known when one is complete. So what is said is written once a window is full, or the utterance
has ended.
"""

import asyncio
import logging
import math
import time
from contextlib import suppress

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from engine.encoders.log_mel import RATE
from engine.errors import RequestError
from models.errors import IngotError
from serve.audio.decoding import MAX_SECONDS
from serve.audio.protocol import AudioRequest, Seconds
from serve.audio.recording import SAMPLE_BYTES, LiveRecording
from serve.audio.speech import speech_of
from serve.audio.transcriber import Transcriber
from serve.errors import error_body
from serve.protocol.invalid import invalid
from serve.realtime.protocol import (
    Append,
    ClientEvent,
    Commit,
    ErrorEvent,
    SessionCreated,
    SessionUpdate,
    TranscriptionDelta,
    TranscriptionDone,
)
from serve.service import Service

MAX_HELD_SECONDS = 300  # of audio that is not heard yet, of one connection
MAX_UTTERANCES = 16  # that wait to be heard
_TASK = "transcribe"
_decoder = msgspec.json.Decoder(ClientEvent)
logger = logging.getLogger("ingot.serve")


class Refusal(Exception):
    """An event that cannot be followed; `code` tells programs why."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class RealtimeSession:
    """From the first event to the last."""

    def __init__(
        self, service: Service, socket: WebSocket, name: str, cache_salt: str, model: str | None
    ) -> None:
        self._service = service
        self._socket = socket
        self._name = name
        self._cache_salt = cache_salt
        self._request = AudioRequest(model=model, stream=True)
        self._current = LiveRecording()  # to which is appended
        self._begun = False  # to be heard, the current one
        self._waiting: asyncio.Queue[Transcriber] = asyncio.Queue(MAX_UTTERANCES)
        self._unheard: list[LiveRecording] = []  # whole, and perhaps not heard to their ends
        self._count = 0

    async def run(self) -> None:
        """Until the client leaves."""
        with suppress(WebSocketDisconnect):
            await self._send(SessionCreated(id=self._name, created=int(time.time())))
            worker = asyncio.create_task(self._hear_all())
            try:
                while (message := await self._socket.receive())["type"] == "websocket.receive":
                    await self._take(message.get("text"))
            finally:
                worker.cancel()
                await asyncio.gather(worker, return_exceptions=True)

    async def _take(self, text: str | None) -> None:
        try:
            self._follow(_event(text))
        except Refusal as refusal:
            await self._send(ErrorEvent(error=str(refusal), code=refusal.code))

    def _follow(self, event: ClientEvent) -> None:
        match event:
            case SessionUpdate():
                self._configure(event)
            case Append(audio):
                self._append(audio)
            case Commit(final):
                self._begin()
                if final:
                    self._end()

    def _configure(self, event: SessionUpdate) -> None:
        model = event.model or self._request.model
        try:
            _, tokens = speech_of(self._service, model)
            tokens.check(event.language, _TASK)
        except RequestError as error:
            raise Refusal(str(error), "invalid_session") from None
        self._request = AudioRequest(model=model, language=event.language, stream=True)

    def _append(self, audio: bytes) -> None:
        if not audio or len(audio) % SAMPLE_BYTES:
            raise Refusal("audio must hold samples of two bytes each, in base64.", "invalid_audio")
        held = self._current.held + sum(each.held for each in self._unheard)
        count = len(audio) // SAMPLE_BYTES
        if held + count > MAX_HELD_SECONDS * RATE:
            raise Refusal(
                f"{MAX_HELD_SECONDS} seconds of audio are not heard yet; this piece was not taken, "
                "send it again after the next transcription.delta.",
                "buffer_full",
            )
        if self._current.count + count > MAX_SECONDS * RATE:
            raise Refusal(
                f"An utterance may last {MAX_SECONDS // 3600} hours; commit with final true and "
                "begin another.",
                "utterance_too_long",
            )
        self._current.append(audio)

    def _begin(self) -> None:
        if self._begun:
            return
        try:
            tokenizer, tokens = speech_of(self._service, self._request.model)
            self._waiting.put_nowait(
                Transcriber(
                    self._service, tokenizer, tokens, self._request, _TASK,
                    f"{self._name}-{self._count}", self._current, cache_salt=self._cache_salt,
                )
            )  # fmt: skip
        except IngotError as error:
            raise Refusal(error_body(error)[1].error.message, "processing_error") from None
        except asyncio.QueueFull:
            raise Refusal(
                f"{MAX_UTTERANCES} utterances wait to be heard; wait for a transcription.done.",
                "too_many_utterances",
            ) from None
        self._count += 1
        self._begun = True

    def _end(self) -> None:
        self._current.end()
        self._unheard.append(self._current)
        self._current, self._begun = LiveRecording(), False

    async def _hear_all(self) -> None:
        while True:
            work = await self._waiting.get()
            try:
                await self._hear(work)
            except WebSocketDisconnect:
                return
            except Exception as error:
                if not isinstance(error, IngotError):
                    logger.exception("An utterance could not be transcribed.")
                message = error_body(error)[1].error.message
                await self._send(ErrorEvent(error=message, code="processing_error"))
            finally:
                self._forget(work)

    async def _hear(self, work: Transcriber) -> None:
        await self._service.pause.passed(self._service.client)
        async for piece in work.pieces():
            await self._send(TranscriptionDelta(delta=piece))
        usage = Seconds(math.ceil(work.duration))
        await self._send(TranscriptionDone(text=work.text, usage=usage))

    def _forget(self, work: Transcriber) -> None:
        """What could not be heard to its end is not heard any more."""
        self._unheard = [each for each in self._unheard if each is not work.recording]
        if work.recording is self._current:
            self._current, self._begun = LiveRecording(), False

    async def _send(self, event: msgspec.Struct) -> None:
        await self._socket.send_text(msgspec.json.encode(event).decode())


def _event(text: str | None) -> ClientEvent:
    if text is None:
        raise Refusal("Events are text; this message was binary.", "invalid_json")
    try:
        event: ClientEvent = _decoder.decode(text)
        return event
    except msgspec.ValidationError as error:
        raise Refusal(str(invalid(error, ClientEvent)), "invalid_event") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise Refusal("The message is not valid JSON.", "invalid_json") from None
