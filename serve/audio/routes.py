"""POST /v1/audio/transcriptions and /v1/audio/translations."""

import asyncio
import math
import os
from collections.abc import Iterator

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from engine.errors import OverloadedError, RequestError
from serve.audio.decoding import decode_audio
from serve.audio.form import FORM, FORM_BYTES, read_form
from serve.audio.formats import write
from serve.audio.protocol import AudioRequest, Seconds, TextDelta, TextDone
from serve.audio.recording import WholeRecording
from serve.audio.speech import speech_of
from serve.audio.transcriber import Transcriber
from serve.generation.cache_namespace import namespace
from serve.http.body import read_body
from serve.http.disconnect import ClientDisconnected, unless_disconnected
from serve.http.owner import owner_of
from serve.http.sse import DATA_ONLY, send_events
from serve.http.whole import send_body
from serve.service import Service

_BEFORE = 2  # of the decoder's context, the share of what was said before
MAX_SAMPLES = 2**28  # of all files that are being heard: 1 GiB, 4.6 hours
FILES_AT_ONCE = max(1, (os.cpu_count() or 1) // 2)  # that are read, each for seconds in one of the
# threads in which prompts are tokenised, of which there are 4 more than cores; two routes read


class AudioRoute:
    """Speech in, text out, by a model that hears."""

    def __init__(self, service: Service, task: str) -> None:
        self._service = service
        self._task = task
        self._num_samples = 0  # that are held
        self._reading = asyncio.Semaphore(FILES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            limit = self._service.settings.max_audio_clip_filesize_mb * 2**20
            body = await read_body(scope, receive, limit + FORM_BYTES, FORM)
            async with self._reading:
                data, request = await read_form(Headers(scope=scope), body)
            if len(data) > limit:
                raise RequestError(
                    f"The file has {len(data)} bytes and {limit} are taken; send it in parts, or "
                    "start the server with a larger --max-audio-clip-filesize-mb.",
                    "file",
                )
            await unless_disconnected(receive, self._answer(request, data, scope, send))
        except ClientDisconnected:
            pass

    async def _answer(self, request: AudioRequest, data: bytes, scope: Scope, send: Send) -> None:
        await self._service.pause.passed(self._service.client)
        work = await self._begin(request, data, scope["state"]["request_id"])
        count = work.recording.count
        if self._num_samples and self._num_samples + count > MAX_SAMPLES:
            raise OverloadedError("Too many hours of audio are being heard; try again soon.")
        self._num_samples += count
        try:
            await self._hear(work, request, scope, send)
        finally:
            self._num_samples -= count

    async def _hear(
        self, work: Transcriber, request: AudioRequest, scope: Scope, send: Send
    ) -> None:
        if self._service.settings.isolate_prefix_cache:
            work.cache_salt = namespace(owner_of(scope))
        if request.stream:
            await send_events(send, work.pieces(), _Events(work), DATA_ONLY)
            return
        async for _ in work.pieces():
            pass
        media, body = write(
            request, task=work.task, language=work.language, duration=work.duration,
            text=work.text, segments=work.segments, words=work.words,
        )  # fmt: skip
        headers = [(b"content-type", media), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send_body(send, body)

    async def _begin(self, request: AudioRequest, data: bytes, name: str) -> Transcriber:
        """Raises RequestError for a file or fields that this model cannot take."""
        service = self._service
        tokenizer, tokens = speech_of(service, request.model)
        info = service.client.info
        tokens.check(request.language, self._task)
        if request.wants_words and not info.aligns:
            raise RequestError(
                "This model does not say when words are said: its generation_config.json names no "
                "alignment_heads; use timestamp_granularities segment.",
                "timestamp_granularities",
            )
        before: list[int] = []
        if request.prompt:
            text = f" {request.prompt.strip()}"
            keep = info.max_model_len // _BEFORE - 1
            before = (await asyncio.to_thread(tokenizer.encode, text, False))[-keep:]
        async with self._reading:
            samples = await asyncio.to_thread(decode_audio, data)
        return Transcriber(
            service, tokenizer, tokens, request, self._task, f"audio-{name}",
            WholeRecording(samples), before,
        )  # fmt: skip


class _Events:
    """A transcript in pieces, as OpenAI's clients read it."""

    def __init__(self, work: Transcriber) -> None:
        self._work = work

    def of(self, piece: str) -> Iterator[TextDelta]:
        yield TextDelta(piece)

    def last(self) -> Iterator[TextDone]:
        yield TextDone(self._work.text, Seconds(math.ceil(self._work.duration)))
