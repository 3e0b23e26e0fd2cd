"""From a file as it was sent to samples: mono, float32, 16 kHz.

libsndfile reads it (WAV, FLAC, Ogg Vorbis and Opus, MP3), soxr resamples it, both of the extra
`audio`. A small file can hold hours of silence, so what it says of its length is checked first and
what is read is counted.
"""

import io
from importlib import import_module
from typing import Any

import numpy as np

from engine.encoders.log_mel import RATE, Floats
from engine.errors import RequestError

MAX_SECONDS = 2 * 60 * 60
_BLOCK = 2**22  # numbers read at once, 16 MB: a second of 1,024 channels may have 786 million
_FORMATS = "WAV, FLAC, Ogg and MP3"


def libraries() -> tuple[Any, Any]:
    """soundfile and soxr; raises RequestError where the extra is not installed."""
    try:
        return import_module("soundfile"), import_module("soxr")
    except (ImportError, OSError):
        raise RequestError(
            "This server cannot read audio: it was installed without the extra 'audio' "
            "(pip install 'ingot[audio]').",
            "file",
        ) from None


def decode_audio(data: bytes) -> Floats:
    """All samples of a file; raises RequestError for one that is no audio, empty or too long."""
    soundfile, soxr = libraries()
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            if not 1000 <= rate <= 768_000:
                raise RequestError(f"The file has {rate} samples a second, which is none.", "file")
            _check_length(file.frames / rate)
            blocks = _resampled(file, rate, soxr)
    except soundfile.LibsndfileError:
        raise RequestError(
            f"The file is no audio that can be read; {_FORMATS} can.", "file"
        ) from None
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(samples):
        raise RequestError("The file holds no audio.", "file")
    return np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)


def _resampled(file: Any, rate: int, soxr: Any) -> list[Floats]:
    stream = None if rate == RATE else soxr.ResampleStream(rate, RATE, 1, dtype="float32")
    blocks, seconds = [], 0.0
    while len(block := file.read(_BLOCK // file.channels, dtype="float32", always_2d=True)):
        seconds += len(block) / rate
        _check_length(seconds)
        mono = block.mean(axis=1)
        blocks.append(mono if stream is None else stream.resample_chunk(mono))
    if stream is not None:
        blocks.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    return blocks


def _check_length(seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise RequestError(
            f"The file is longer than the {MAX_SECONDS // 3600} hours that are transcribed at "
            "once; send it in parts.",
            "file",
        )
