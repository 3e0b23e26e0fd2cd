"""Files become samples at 16 kHz, whatever they were; what is none is refused in a sentence."""

from typing import Any

import numpy as np
import pytest

from engine.errors import RequestError
from serve.audio import decoding
from serve.audio.decoding import decode_audio
from tests.serve.audio.speech_model import file_of, tone

pytest.importorskip("soundfile", reason="needs the extra audio")


LOSSY = {"MP3": 0.05, "OGG": 0.1}  # of an amplitude of 0.4


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_every_format_gives_the_samples(kind: str) -> None:
    found = decode_audio(file_of(tone(1.5), kind=kind))
    assert found.dtype == np.float32
    assert abs(len(found) - 24_000) < 200
    middle = slice(4000, 20_000)
    assert np.abs(found[middle] - tone(1.5)[middle, 0]).max() < LOSSY.get(kind, 1e-4)


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_other_rates_are_resampled_and_channels_mixed(rate: int) -> None:
    found = decode_audio(file_of(tone(1.5, rate, channels=2), rate))
    assert abs(len(found) - 24_000) <= 1
    assert np.abs(found[1000:23_000] - tone(1.5)[1000:23_000, 0]).max() < 1e-3


@pytest.mark.parametrize("data", [b"", b"RIFF", b"\0" * 5000, b"ID3" + b"\xff" * 300])
def test_what_is_no_audio_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError, match="no audio"):
        decode_audio(data)


def test_an_empty_file_is_refused() -> None:
    with pytest.raises(RequestError, match="holds no audio"):
        decode_audio(file_of(tone(0)))


def test_hours_in_a_small_file_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_SECONDS", 2)
    assert len(decode_audio(file_of(tone(2)))) == 32_000
    with pytest.raises(RequestError, match="longer than"):
        decode_audio(file_of(tone(3), kind="FLAC"))


def test_what_is_read_at_once_is_bounded_whatever_the_file_says_of_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Silence is small as a file: many channels of a high rate were gigabytes in memory."""
    import soundfile

    read, largest = soundfile.SoundFile.read, 0

    def watched(self: soundfile.SoundFile, *given: Any, **more: Any) -> np.ndarray:
        nonlocal largest
        block: np.ndarray = read(self, *given, **more)
        largest = max(largest, block.nbytes)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", watched)
    silent = np.zeros((192_000 * 4, 8), np.float32)
    found = decode_audio(file_of(silent, 192_000, kind="FLAC"))
    assert len(found) == 16_000 * 4 and 0 < largest <= 2**24


def test_without_the_libraries_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(decoding, "import_module", missing)
    with pytest.raises(RequestError, match=r"pip install 'ingot\[audio\]'"):
        decode_audio(b"")
