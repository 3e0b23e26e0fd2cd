"""A finished transcript in the formats that OpenAI's API has."""

import math
from collections.abc import Sequence

import msgspec

from serve.audio.protocol import (
    AudioRequest,
    Seconds,
    Segment,
    Transcript,
    VerboseTranscript,
    Word,
)

JSON, PLAIN = b"application/json", b"text/plain; charset=utf-8"
CONTENT_TYPES = {"text": PLAIN, "srt": PLAIN, "vtt": b"text/vtt; charset=utf-8"}


def write(
    request: AudioRequest,
    *,
    task: str,
    language: str,
    duration: float,
    text: str,
    segments: Sequence[Segment],
    words: Sequence[Word] = (),
) -> tuple[bytes, bytes]:
    """Content type and body."""
    kind = request.response_format
    used = Seconds(math.ceil(duration))
    if kind == "json":
        return JSON, msgspec.json.encode(Transcript(text, used))
    if kind == "verbose_json":
        verbose = VerboseTranscript(task, language, duration, text, used)
        if request.wants_segments:
            verbose.segments = list(segments)
        if request.wants_words:
            verbose.words = list(words)
        return JSON, msgspec.json.encode(verbose)
    if kind == "text":
        body = f"{text}\n"
    elif kind == "srt":
        body = "".join(
            f"{number}\n{_times(each, ',')}\n{_line(each)}\n\n"
            for number, each in enumerate(segments, 1)
        )
    else:
        cues = "".join(f"{_times(each, '.')}\n{_line(each)}\n\n" for each in segments)
        body = f"WEBVTT\n\n{cues}"
    return CONTENT_TYPES[kind], body.encode()


def _line(segment: Segment) -> str:
    return segment.text.strip().replace("-->", "->")  # which would end the cue


def _times(segment: Segment, mark: str) -> str:
    return f"{clock(segment.start, mark)} --> {clock(segment.end, mark)}"


def clock(seconds: float, mark: str) -> str:
    """01:02:03.456"""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{mark}{rest % 1000:03}"
