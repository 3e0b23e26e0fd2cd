"""A backend that answers from a script: each `gen` writes what it was asked behind, upside down."""

from engine.errors import EngineError, RequestError
from engine.language.backend import Score, Scored, Write
from engine.language.parts import Likelihood, Written


class Scripted:
    """Answers one request a turn, the newest first, unless `error` is to be raised."""

    def __init__(self):
        self.asked, self.batches, self.error = [], [], None

    def requests(self):
        return _Requests(self)


class _Requests:
    def __init__(self, script):
        self._script, self._open = script, []

    def start(self, key, ask):
        if "refuse" in ask.prompt:
            raise RequestError("The prompt is refused.", "prompt")
        self._script.asked.append(ask)
        self._open.append((key, ask))

    def turn(self):
        self._script.batches.append(len(self._open))
        if self._script.error:
            raise EngineError(self._script.error)
        key, ask = self._open.pop()
        return [(key, _answer(ask))]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._script.batches.append(-len(self._open))


def _answer(ask: Write | Score):
    if "fail" in ask.prompt:
        return RequestError("The engine does not like it.", "prompt")
    if isinstance(ask, Score):
        return Scored([Likelihood(-float(len(c)), len(c) // 2) for c in ask.choices], 9, 3)
    text = ask.prompt[::-1][: ask.options["max_tokens"]]
    return Written(text, len(text), "length", None, len(ask.prompt), 0)
