"""Guesses what follows from what stood behind the same tokens before.

Prompt lookup (Saxena 2023, https://github.com/apoorvumang/prompt-lookup-decoding), with the memory
of LZ77: while guesses hold, the next one goes on behind them without another search, and a text
that repeats itself is continued beyond its end. A search reads the text once, by NumPy: 20 us for
32,000 tokens.
"""

from array import array
from collections.abc import Sequence

import numpy as np

_NO_TOKEN = -2  # stands behind a prediction: nothing follows that, and no text has it
_LONGEST_REST = 64  # tokens


class Drafter:
    """One request's text, and the place in it that the text seems to repeat.

    `most` tokens are guessed at once. The newest `longest` tokens, or fewer, at least `shortest`,
    must have stood there. `prediction` is what the answer to a prompt of `prompt_len` tokens may
    be, and its beginning the first guess.
    """

    def __init__(
        self,
        most: int,
        shortest: int,
        longest: int,
        prompt_len: int,
        prediction: Sequence[int] = (),
    ) -> None:
        self.most = most
        self._shortest, self._longest = shortest, longest
        self._text = array("i", [*prediction, _NO_TOKEN] if prediction else ())
        self._prompt_len = prompt_len
        self._place = 0 if prediction else None  # of the token that should be next
        self._known = 0  # tokens of the request that are part of the text
        self._rest = self._pause = 0  # tokens without a guess: still, and after the last failure

    def propose(self, token_ids: Sequence[int], num_in_flight: int, count: int) -> list[int]:
        """At most `count` tokens, at least 1, that may follow the request's and those in flight."""
        self._read(token_ids)
        if self._rest:
            return []
        if self._place is None:
            self._place = self._search()
            if self._place is None:
                return []
        ids = self._continue(self._place, num_in_flight + count)
        if _NO_TOKEN in ids:
            del ids[ids.index(_NO_TOKEN) :]
        return ids[num_in_flight:]

    def judge(self, num_accepted: int) -> None:
        """Say how much of a draft was right. After one of which nothing was, the next has to wait:
        for 1 token behind the one that was, then for 2, 4, ... until one is right again."""
        if num_accepted:
            self._rest = self._pause = 0
        else:
            self._pause = min(max(1, 2 * self._pause), _LONGEST_REST)
            self._rest = 1 + self._pause

    def _read(self, token_ids: Sequence[int]) -> None:
        """Know the request's newest tokens; those that were expected move the place on."""
        if not self._known:
            self._text.extend(token_ids[: self._prompt_len])
            self._known = self._prompt_len
        for token in token_ids[self._known :]:
            self._expect(token)
        self._rest = max(0, self._rest - len(token_ids) + self._known)
        self._known = len(token_ids)

    def _expect(self, token: int) -> None:
        place = self._place
        if place is not None:
            self._place = place + 1 if self._text[place] == token else None
        self._text.append(token)

    def _search(self) -> int | None:
        """The place behind the most of the newest tokens that stood together before; where that is
        so in several places, in the newest."""
        text = np.frombuffer(self._text, np.intc)
        places, found = np.flatnonzero(text[:-1] == text[-1]) + 1, None
        for length in range(1, min(self._longest, len(text)) + 1):
            places = places[places >= length]
            places = places[text[places - length] == text[-length]]
            if not places.size:
                break
            if length >= self._shortest:
                found = int(places[-1])
        return found

    def _continue(self, place: int, count: int) -> list[int]:
        """The tokens from a place on; behind its end the text goes on as from that place."""
        found = self._text[place : place + count].tolist()
        period = len(self._text) - place
        while len(found) < count:
            found.append(found[-period])
        return found
