"""The hidden state from which an answer's last token was chosen, for whoever wants no other.

States come in order, at the latest with the tokens that were chosen from them: row k is of the
answer's token k. Only what may still be the last is kept.
"""

from collections.abc import Sequence


class LastState:
    """Of one continuation."""

    def __init__(self) -> None:
        self._states: list[bytes] = []  # from that of the newest token on
        self._num_tokens = 0

    def grow(self, states: Sequence[bytes], num_tokens: int) -> list[bytes]:
        """Take more states, and the number of tokens that were added; returns the one that counts,
        if there is a token."""
        self._states += states
        if num_tokens:
            del self._states[: num_tokens - (self._num_tokens == 0)]
            self._num_tokens += num_tokens
        return self._states[: min(1, self._num_tokens)]
