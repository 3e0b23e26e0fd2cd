"""Requests that wait for a vector, and a batch of them on the device."""

from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

import numpy as np
from jaxtyping import Array

from engine.compiling.programs import Programs
from engine.compiling.shapes import StepShape
from engine.messages import PoolRequest


@dataclass(slots=True, eq=False)
class Waiting:
    """One sequence, and since when it waits."""

    request: PoolRequest
    arrival_time: float = field(default_factory=monotonic)
    queue_seconds: float = 0.0  # once it has left the queue

    @property
    def num_tokens(self) -> int:
        return len(self.request.prompt_token_ids)


@dataclass
class LaunchedBatch:
    """A batch on the device: row b of `vectors` [B, W] belongs to the b-th of its requests.

    Where each token has a vector, those of the b-th are the rows from `starts[b]` on.
    """

    requests: list[Waiting]
    shape: StepShape
    vectors: Array
    starts: list[int] | None = None

    @property
    def num_tokens(self) -> int:
        return sum(each.num_tokens for each in self.requests)

    def read(self) -> list[np.ndarray]:
        """Wait for it: float32 [W] a request, or [its tokens, W]; raises what the device raised."""
        found = np.asarray(self.vectors)
        if self.starts is None:
            return list(found[: len(self.requests)])
        pairs = zip(self.starts, self.requests, strict=True)
        return [found[start : start + each.num_tokens] for start, each in pairs]


class PoolingRunner(Protocol):
    """One model on one mesh, for encoders and for decoders."""

    programs: Programs

    def take(self, waiting: deque[Waiting]) -> list[Waiting]:
        """Remove from the queue what the next batch holds, its head among them."""
        ...

    def launch(self, requests: list[Waiting]) -> LaunchedBatch:
        """Start a batch; its vectors are on their way to the host when this returns."""
        ...

    def close(self) -> None:
        """Compile nothing more, and give the device's memory back."""
        ...
