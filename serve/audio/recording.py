"""Where a transcriber's windows come from: a recording that is whole, or one that goes on."""

import asyncio
from typing import Protocol

import numpy as np

from engine.encoders.log_mel import Floats

SAMPLE_BYTES = 2  # of PCM: 16 bits, the lower eight first
_LOUDEST = 32768.0


class Recording(Protocol):
    """Samples at 16 kHz."""

    @property
    def count(self) -> int:
        """How many there are so far."""

    async def window(self, at: int, most: int) -> Floats:
        """From sample `at` on as many as `most`, fewer only where the recording ends. Nothing
        before `at` is asked for again."""


class WholeRecording:
    """One that is there."""

    def __init__(self, samples: Floats) -> None:
        self._samples = samples

    @property
    def count(self) -> int:
        return len(self._samples)

    async def window(self, at: int, most: int) -> Floats:
        return self._samples[at : at + most]


class LiveRecording:
    """One to which somebody appends while somebody else waits for its windows."""

    def __init__(self) -> None:
        self._data = bytearray()  # from sample `_first` on
        self._first = 0
        self._ended = False
        self._news = asyncio.Event()

    @property
    def count(self) -> int:
        return self._first + self.held

    @property
    def held(self) -> int:
        """Samples that may still be asked for."""
        return len(self._data) // SAMPLE_BYTES

    def append(self, pcm: bytes) -> None:
        """More of it: 16-bit samples, the lower eight bits first."""
        self._data += pcm
        self._news.set()

    def end(self) -> None:
        """Nothing comes after this."""
        self._ended = True
        self._news.set()

    async def window(self, at: int, most: int) -> Floats:
        while not self._ended and self.count < at + most:
            self._news.clear()
            await self._news.wait()
        gone = min(at - self._first, self.held)
        del self._data[: gone * SAMPLE_BYTES]
        self._first += gone
        pcm = np.frombuffer(bytes(self._data[: most * SAMPLE_BYTES]), "<i2")
        return pcm.astype(np.float32) / np.float32(_LOUDEST)
