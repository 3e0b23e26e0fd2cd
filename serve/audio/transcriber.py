"""One file through the engine, window after window.

    samples ─ window ─ spectrogram ─> engine: language ─ text with times ─> pieces ─ next window ..

The windows of one file follow each other, for where the next begins is heard in the one before;
those of other files, and other requests, share the engine's steps with them. Each question about
a window (which language, is it speech at all, what was said) is a request of its own, and its
encoder runs once for all of them.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from math import exp
from typing import Any

from engine.encoders.align_request import AlignRequest
from engine.encoders.log_mel import HOP, RATE, Floats, log_mel
from engine.outputs import PositionLogprobs
from engine.sampling.params import SamplingParams
from engine.tokenizers.tokenizer import Tokenizer
from serve.audio.protocol import TIMED, AudioRequest, Segment, Word
from serve.audio.recording import Recording
from serve.audio.segments import Piece, cut
from serve.audio.tokens import SpeechTokens
from serve.audio.words import token_times, words_of
from serve.engine_client import Prompt
from serve.generation.streams import collect
from serve.service import Service

_OPTIONS = (
    "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "watermarking",
)  # fmt: skip
_NEVER = -100.0  # logit bias of a token that is not to be written


@dataclass
class Transcriber:
    """Iterating gives pieces of the text; then `text`, `language` and `segments` are known."""

    service: Service
    tokenizer: Tokenizer
    tokens: SpeechTokens
    request: AudioRequest
    task: str  # "transcribe", "translate"
    name: str  # of the request
    recording: Recording
    before: Sequence[int] = ()  # ids of what was said before
    cache_salt: str = ""
    language: str = ""
    text: str = ""
    segments: list[Segment] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    _asked: int = 0  # questions so far, which have names of their own
    _next: int = 0  # sample at which the next window begins

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.recording.count / RATE

    async def pieces(self) -> AsyncIterator[str]:
        """The text, a few words at a time."""
        frames = 2 * self.service.client.info.max_encoder_len
        full, recording = frames * HOP, self.recording
        is_timed = self.request.response_format in TIMED
        timed = is_timed or len(await recording.window(0, full + 1)) > full
        self.language = self.request.language or ("" if self.tokens.languages else "en")
        at, before = 0, self.before
        while len(window := await recording.window(at, full)):
            await self.service.pause.passed(self.service.client)  # a file may last for hours
            mels = self.service.client.info.mel_bins
            features = (await asyncio.to_thread(log_mel, window, mels, frames)).tobytes()
            if not self.language:
                self.language = await self._find_language(features)
            words = self._timed(features, window, at, before) if timed else self._plain(
                features, before
            )  # fmt: skip
            async for piece in words:
                self.text += piece
                yield piece
            at, before = (self._next if timed else at + len(window)), ()
        self.text = self.text.strip()

    async def _plain(self, features: bytes, before: Sequence[int]) -> AsyncIterator[str]:
        """A window that is the whole file, without times: its text as it is written."""
        prompt = self._prompt(features, before, timestamps=False)
        words = self.tokenizer.detokenizer(())
        with self._ask([prompt]) as stream:
            async for deltas in stream:
                said = [token for token in deltas[0].token_ids if token < self.tokens.end]
                if text := words.append(said):
                    yield text
        if text := words.flush():
            yield text

    async def _timed(
        self, features: bytes, window: Floats, at: int, before: Sequence[int]
    ) -> AsyncIterator[str]:
        """A window with times: its pieces when it has ended, for some are heard again."""
        asked = [self._prompt(features, before, timestamps=True)]
        verbose = self.request.response_format == "verbose_json"
        if verbose and self.tokens.no_speech is not None:
            asked.append(self._probe(features, [self.tokens.no_speech]))
        with self._ask(asked) as stream:
            said = await collect(stream)
        pieces, seconds = cut(said[0].token_ids, self.tokens, len(window) / RATE)
        scores = _average(said[0].token_ids, said[0].logprobs or [])
        silence = 0.0
        if 1 in said and said[1].logprobs:
            silence = exp(said[1].logprobs[0][said[1].token_ids[0]].logprob)
        if self.request.wants_words and pieces:
            self.words += await self._words(
                features, window, at, asked[0], said[0].token_ids, pieces
            )
        for piece in pieces:
            text = self.tokenizer.decode(piece.token_ids)
            self.segments.append(self._segment(piece, text, at, scores, silence))
            yield text
        self._next = at + max(1, round(seconds * RATE))

    async def _words(
        self,
        features: bytes,
        window: Floats,
        at: int,
        asked: Prompt,
        said: list[int],
        pieces: Sequence[Piece],
    ) -> list[Word]:
        """When the words of a window were said; the last token says nothing of itself, for it was
        never read."""
        begun, known = asked.token_ids, len(said) - 1
        times = [0.0]
        if known:
            positions = max(1, len(window) // (2 * HOP))
            align = AlignRequest(len(begun), positions)
            params = SamplingParams(temperature=0, max_tokens=1, detokenize=False)
            prompt = Prompt(
                None, [*begun, *said[:known]], params, self.cache_salt,
                encoder_features=features, align=align,
            )  # fmt: skip
            with self._ask([prompt]) as stream:
                answer = (await collect(stream))[0].alignment
            times = await asyncio.to_thread(token_times, answer, known)
        ends = [round(at / RATE + time, 2) for time in times]
        spans = list(zip([round(at / RATE, 2), *ends], ends, strict=False))
        return [
            word
            for piece in pieces
            for word in words_of(
                self.tokenizer, piece.token_ids, [spans[i] for i in piece.places], self.language
            )
        ]

    async def _find_language(self, features: bytes) -> str:
        """The likeliest: what the model would write behind its first token."""
        names = {id: name for name, id in self.tokens.languages.items()}
        with self._ask([self._probe(features, list(names))]) as stream:
            said = await collect(stream)
        return names[said[0].token_ids[0]]

    def _segment(self, piece: Piece, text: str, at: int, score: float, silence: float) -> Segment:
        offset, data = at / RATE, text.encode()
        return Segment(
            id=len(self.segments),
            seek=at // HOP,
            start=round(offset + piece.start, 2),
            end=round(offset + piece.end, 2),
            text=text,
            tokens=piece.token_ids,
            temperature=self.request.temperature,
            avg_logprob=score,
            compression_ratio=len(data) / len(zlib.compress(data)),
            no_speech_prob=silence,
        )

    def _prompt(self, features: bytes, before: Sequence[int], *, timestamps: bool) -> Prompt:
        ids = self.tokens.prompt(self.language, self.task, before, timestamps=timestamps)
        given = {name: getattr(self.request, name) for name in _OPTIONS}
        options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
        verbose = self.request.response_format == "verbose_json"
        room = self.service.client.info.max_model_len - len(ids)
        params = SamplingParams(
            **options,
            max_tokens=min(room, self.request.max_completion_tokens or room),
            logit_bias=dict.fromkeys(self.tokens.suppressed, _NEVER) or None,
            logprobs=0 if verbose else None,
            detokenize=False,
        )
        times = self.tokens.first_timestamp if timestamps else 0
        return Prompt(
            None, ids, params, self.cache_salt, encoder_features=features, times_from=times
        )

    def _probe(self, features: bytes, choices: list[int]) -> Prompt:
        """Which of these tokens is the likeliest behind the first, and how likely it is."""
        params = SamplingParams(
            temperature=0, max_tokens=1, allowed_token_ids=choices, logprobs=0, detokenize=False
        )
        begun = [self.tokens.start]
        return Prompt(None, begun, params, self.cache_salt, encoder_features=features)

    def _ask(self, prompts: list[Prompt]) -> Any:
        self._asked += 1
        interval = self.service.stream_interval(self.request.stream)
        name = f"{self.name}-{self._asked}"
        return self.service.client.generate(name, prompts, interval=interval)


def _average(ids: Sequence[int], logprobs: Sequence[PositionLogprobs]) -> float:
    """Of the log-probabilities of what was written."""
    values = [each[token].logprob for token, each in zip(ids, logprobs, strict=False)]
    return sum(values) / len(values) if values else 0.0
