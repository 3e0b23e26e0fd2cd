"""What `/v1/audio/transcriptions` and `/translations` take and give, with OpenAI's names."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from engine.errors import RequestError
from serve.protocol.decoding import CheckedRequest

Format = Literal["json", "text", "srt", "verbose_json", "vtt"]
TIMED = ("srt", "verbose_json", "vtt")  # formats that say when what was said


class AudioRequest(CheckedRequest, frozen=True, kw_only=True):
    """The fields beside `file` of speech that is to be written."""

    model: str | None = None
    prompt: str | None = None  # what was said before, or how names are spelt
    language: str | None = None  # of the audio; found by the model if it is left out
    response_format: Format = "json"
    temperature: float = 0.0
    timestamp_granularities: tuple[Literal["segment", "word"], ...] = ()
    stream: bool = False
    seed: int | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None  # of tokens that the same window has
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    watermarking: bool | None = None
    max_completion_tokens: int | None = None  # of a window

    @property
    def wants_words(self) -> bool:
        return "word" in self.timestamp_granularities

    @property
    def wants_segments(self) -> bool:
        return not self.timestamp_granularities or "segment" in self.timestamp_granularities

    def check_shared(self) -> None:
        most = self.max_completion_tokens
        if most is not None and most < 1:
            raise RequestError(
                f"max_completion_tokens must be at least 1, got {str(most)[:40]}.",
                "max_completion_tokens",
            )
        granularities = self.timestamp_granularities
        if granularities and self.response_format != "verbose_json":
            raise RequestError(
                "timestamp_granularities needs response_format verbose_json.",
                "timestamp_granularities",
            )
        if self.stream and self.response_format not in ("json", "text"):
            raise RequestError("stream needs response_format json or text.", "stream")


class Seconds(Struct):
    """How much audio was read."""

    seconds: int
    type: Literal["duration"] = "duration"


class Transcript(Struct):
    """The answer in `json`."""

    text: str
    usage: Seconds


class Segment(Struct):
    """A sentence or so; times in seconds."""

    id: int
    seek: int  # frames before the window that it was heard in
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class Word(Struct):
    """One word, without the space before it; times in seconds."""

    word: str
    start: float
    end: float


class VerboseTranscript(Struct):
    """The answer in `verbose_json`; without granularities it has segments."""

    task: str
    language: str
    duration: float
    text: str
    usage: Seconds
    segments: list[Segment] | UnsetType = UNSET
    words: list[Word] | UnsetType = UNSET


class TextDelta(Struct):
    """A piece of a streamed answer."""

    delta: str
    type: Literal["transcript.text.delta"] = "transcript.text.delta"


class TextDone(Struct):
    """Its end."""

    text: str
    usage: Seconds | UnsetType = UNSET
    type: Literal["transcript.text.done"] = "transcript.text.done"
