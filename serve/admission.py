"""How much may wait for the engine: sequences without a row, and tokens of prompts that have not
begun to answer. What is beyond is refused at once, before anything of it is sent.

`max_reqs` bounds the queue; `max_tokens` bounds how long a first token takes to come, being that
time by how many tokens of prompts are computed in a second. Both are None for no limit.
"""

from engine.errors import OverloadedError
from serve.operations.metrics import Metrics


class Admission:
    """The limits of one server, and the prompts that wait."""

    def __init__(
        self, metrics: Metrics, max_reqs: int | None = None, max_tokens: int | None = None
    ) -> None:
        self._metrics = metrics
        self._max_reqs = max_reqs
        self._max_tokens = max_tokens
        self._num_tokens = 0

    def check(self, waiting: int, tokens: int) -> None:
        """Raise OverloadedError if with a new request so many sequences would wait, or with its
        `tokens` too many of prompts; one that is alone may be as long as it is."""
        if self._max_reqs is not None and waiting > self._max_reqs:
            self._metrics.rejected("queue_full")
            raise OverloadedError(f"The queue is full: {self._max_reqs} requests wait already.")
        most = self._max_tokens
        if most is not None and self._num_tokens and self._num_tokens + tokens > most:
            self._metrics.rejected("queued_tokens")
            raise OverloadedError(
                f"The queue is full: prompts of {self._num_tokens} tokens wait already, and this "
                f"one of {tokens} would make more than {most}."
            )

    def enter(self, tokens: int) -> "Waiting":
        """A prompt goes to the engine."""
        return Waiting(self, tokens)

    def count(self, tokens: int) -> None:
        """So many more, or fewer, wait."""
        self._num_tokens += tokens


class Waiting:
    """A prompt that waits until it begins to answer, or ends."""

    def __init__(self, admission: Admission, tokens: int) -> None:
        self._admission = admission
        self._tokens = tokens
        admission.count(tokens)

    def end(self) -> None:
        """It does so no longer; further calls do nothing."""
        self._admission.count(-self._tokens)
        self._tokens = 0
