"""The log-mel spectrogram that Whisper hears, on the host, in NumPy.

    samples at 16 kHz ─ 400 samples every 160, Hann ─ power ─ mel bins ─ log10, 8 decades at most

Source: Whisper, arXiv 2212.04356; Slaney's mel scale. Imports no JAX: the HTTP front computes it.
"""

from functools import cache
from typing import Any

import numpy as np

RATE = 16_000  # samples of a second
HOP = 160  # samples from frame to frame
_WIDTH = 400
_LINEAR, _BREAK = 200 / 3, 1000.0  # Hz a mel up to 1000 Hz, logarithmic beyond
_STEP = np.log(6.4) / 27

Floats = np.ndarray[Any, np.dtype[np.float32]]


def log_mel(samples: Floats, mels: int, frames: int) -> Floats:
    """float32 [frames, mels] of the first frames * 160 samples, with silence behind them."""
    wave = np.zeros(frames * HOP)
    wave[: len(samples)] = samples[: len(wave)]
    wave = np.pad(wave, _WIDTH // 2, mode="reflect")
    window = np.hanning(_WIDTH + 1)[:-1]
    pieces = np.lib.stride_tricks.sliding_window_view(wave, _WIDTH)[::HOP][:frames]
    power = np.abs(np.fft.rfft(pieces * window)) ** 2  # [frames, bins]
    spectrum = np.log10(np.maximum(power @ mel_filters(mels), 1e-10))
    spectrum = np.maximum(spectrum, spectrum.max() - 8.0)
    scaled: Floats = ((spectrum + 4.0) / 4.0).astype(np.float32)
    return scaled


@cache
def mel_filters(mels: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[bins, mels]: triangles of equal area, their corners equally far apart on the mel scale."""
    frequencies = np.linspace(0, RATE / 2, _WIDTH // 2 + 1)
    corners = _hertz(np.linspace(0, _mel(RATE / 2), mels + 2))
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    rising = (frequencies[:, None] - low) / (middle - low)
    falling = (high - frequencies[:, None]) / (high - middle)
    triangles = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(triangles * 2 / (high - low))


def _mel(hertz: float) -> float:
    return float(_BREAK / _LINEAR + np.log(hertz / _BREAK) / _STEP)


def _hertz(mels: np.ndarray) -> np.ndarray:
    start = _BREAK / _LINEAR
    return np.where(mels < start, mels * _LINEAR, _BREAK * np.exp(_STEP * (mels - start)))
