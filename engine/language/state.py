"""A text that grows by what is said and what a model writes, and its forks.

A state is a place in a tree of parts. Adding a part makes a place below; forking makes a second
name for the same place, so what forks share is written once. Nothing runs until a value is read:
then everything that was asked for in the whole tree runs, side by side as far as it can.

    "Q: ..." ── gen("answer") ─┬─ " Why?" ── gen("why")       forks[0]
                               └─ " Really?" ── choice(...)   forks[1]
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import overload

from engine.errors import RequestError
from engine.language.backend import Answer, Ask, Backend, Requests, Score, Scored, Write
from engine.language.parts import Choice, Chosen, Gen, Part, Piece, Written, choose, parts_of
from engine.templates.chat_template import Rendered
from engine.tokenizers.token_guard import escaped
from models.errors import IngotError

MAX_FORKS = 1024
Result = Written | Chosen


class _Place:
    """One part of a text, and what became of it: a text, or an error that ends every text below."""

    def __init__(self, above: "_Place | None", part: Part) -> None:
        self.above = above
        self.part = part
        self.text: str | None = None
        self.result: Result | None = None
        self.error: IngotError | None = None
        self.below: list[_Place] = []  # those that wait for this one

    @property
    def settled(self) -> bool:
        return self.text is not None or self.error is not None

    def up(self) -> "Iterator[_Place]":
        """This place and those above it, upwards."""
        place: _Place | None = self
        while place is not None:
            yield place
            place = place.above

    def before(self) -> str:
        """The text that stands above."""
        above = self.above.up() if self.above else ()
        return "".join([place.text or "" for place in above][::-1])

    def settle(self, answer: Answer) -> None:
        """Take the answer that was asked for."""
        if isinstance(answer, IngotError):
            self.error = _named(answer, self.part)
            return
        if isinstance(answer, Scored) and isinstance(self.part, Choice):
            counts = answer.num_prompt_tokens, answer.num_cached_tokens
            self.result = choose(self.part, answer.likelihoods, *counts)
        elif isinstance(answer, Written) and isinstance(self.part, Gen):
            self.result = answer
        else:
            raise TypeError(f"{type(answer).__name__} answers no {type(self.part).__name__}")
        self.text = self.result.text


class _Tree:
    """The places of a state and its forks: those that could run now, and how they run."""

    def __init__(self, backend: Backend, chat: Rendered | None) -> None:
        self.backend = backend
        self._chat = chat
        self._ready: deque[_Place] = deque()

    def add(self, above: _Place | None, part: Part) -> _Place:
        """A new place below `above`."""
        place = _Place(above, part)
        if above is not None and not above.settled:
            above.below.append(place)
        else:
            place.error = above.error if above else None
            self._begin(place)
        return place

    def run(self) -> None:
        """Run everything that was asked for. What an exception interrupts can be run again."""
        if not self._ready:
            return
        running: dict[int, _Place] = {}
        try:
            with self.backend.requests() as requests:
                self._start(requests, running)
                while running:
                    for key, answer in requests.turn():
                        self._settle(running.pop(key), answer)
                    self._start(requests, running)
        finally:
            self._ready.extend(running.values())

    def _start(self, requests: Requests, running: dict[int, _Place]) -> None:
        while self._ready:
            place = self._ready.popleft()
            running[id(place)] = place
            try:
                requests.start(id(place), self._ask(place))
            except RequestError as error:
                self._settle(running.pop(id(place)), error)

    def _ask(self, place: _Place) -> Ask:
        part, before = place.part, place.before()
        chat, marked = self._chat is not None, self._marked(before)
        if isinstance(part, Choice):
            return Score(before, part.choices, chat, marked)
        if isinstance(part, Gen):
            return Write(before, part.options, chat, marked)
        raise TypeError("a text asks for nothing")

    def _marked(self, before: str) -> str | None:
        """The text for a tokenizer, where messages at its beginning spell special tokens."""
        if self._chat is None or self._chat.marked is None:
            return None
        return self._chat.marked + escaped(before[len(self._chat.text) :])

    def _settle(self, place: _Place, answer: Answer) -> None:
        place.settle(answer)
        settled = [place]
        while settled:
            above = settled.pop()
            waiting, above.below = above.below, []
            for each in waiting:
                each.error = above.error
                self._begin(each)
                if each.settled:
                    settled.append(each)

    def _begin(self, place: _Place) -> None:
        """All above is settled: a text is too, and a part that the model writes can run."""
        if place.error is None and isinstance(place.part, str):
            place.text = place.part
        elif place.error is None:
            self._ready.append(place)


class State:
    """A text that grows: `state += "..."`, `state += gen("name")`, `state["name"]`.

    Reading anything runs what has been asked for, of this state and of its forks. As a context
    (`with llm.state() as s:`) it runs on the way out what nobody has read.
    """

    def __init__(self, backend: Backend, text: str = "", *, chat: Rendered | None = None) -> None:
        self._tree = _Tree(backend, chat)
        self._place = self._tree.add(None, (chat.text if chat else "") + text)

    @property
    def backend(self) -> Backend:
        """What writes for this state."""
        return self._tree.backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        """Let another backend go on with this state and its forks."""
        self._tree.backend = backend

    def __iadd__(self, piece: str | Piece) -> "State":
        for part in parts_of(piece):
            self._place = self._tree.add(self._place, part)
        return self

    def fork(self, count: int = 2) -> "Forks":
        """States that go on from here, each its own way; the text up to here is computed once.

        Raises RequestError for a count that is not in [1, 1024].
        """
        if not 1 <= count <= MAX_FORKS:
            raise RequestError(f"A state can be forked into 1 to {MAX_FORKS}.", "count")
        return Forks([self._forked() for _ in range(count)])

    def fail(self, error: IngotError) -> None:
        """End this state: whatever is read from here on raises `error`."""
        self._place = self._tree.add(self._place, "")
        self._place.text, self._place.error = None, error

    def run(self) -> "State":
        """Run what has been asked for. An error of one part is raised where that part is read."""
        self._tree.run()
        return self

    def __getitem__(self, name: str) -> str:
        """The text of a named part, the newest of that name.

        Raises KeyError for a name that no part has, and the `IngotError` that a part ended with.
        """
        return self._read(name).text

    def written(self, name: str) -> Written:
        """What became of a `gen`: why it ended, and its counts of tokens; raises as reading."""
        result = self._read(name)
        if isinstance(result, Written):
            return result
        raise KeyError(f"{name!r} is a choice; see chosen({name!r})")

    def chosen(self, name: str) -> Chosen:
        """What became of a `choice`: how likely each of its texts is; raises as reading."""
        result = self._read(name)
        if isinstance(result, Chosen):
            return result
        raise KeyError(f"{name!r} is written text; see written({name!r})")

    @property
    def text(self) -> str:
        """Everything so far; raises the `IngotError` that a part ended with."""
        self._tree.run()
        self._check()
        return self._place.before() + (self._place.text or "")

    @property
    def error(self) -> IngotError | None:
        """What ended this state, of all that has run until now."""
        return self._place.error

    @property
    def names(self) -> list[str]:
        """The names of its parts, in their order."""
        named = [place.part.name for place in self._place.up() if not isinstance(place.part, str)]
        return list(dict.fromkeys(name for name in reversed(named) if name is not None))

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        parts = list(self._place.up())[::-1]
        shown = "".join(_shown(place) for place in parts)
        return f"State({shown!r})"

    def __enter__(self) -> "State":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.run()

    def _forked(self) -> "State":
        other = object.__new__(State)
        other._tree, other._place = self._tree, self._place
        return other

    def _read(self, name: str) -> Result:
        found = (p for p in self._place.up() if not isinstance(p.part, str) and p.part.name == name)
        place = next(found, None)
        if place is None:
            self._check()
            raise KeyError(
                f"no part is called {name!r}; there are {', '.join(self.names) or 'none'}"
            )
        self._tree.run()
        if place.result is None:
            raise place.error or RuntimeError("a part that has run has no result")
        return place.result

    def _check(self) -> None:
        if self._place.error is not None:
            raise self._place.error


class Forks(Sequence[State]):
    """States that began as one: `forks += part` adds to each, `forks["name"]` reads from each."""

    def __init__(self, states: list[State]) -> None:
        self._states = states
        self._began = [state._place for state in states]

    @overload
    def __getitem__(self, at: int) -> State: ...
    @overload
    def __getitem__(self, at: slice) -> list[State]: ...
    @overload
    def __getitem__(self, at: str) -> list[str]: ...
    def __getitem__(self, at: int | slice | str) -> State | list[State] | list[str]:
        if isinstance(at, str):
            return [state[at] for state in self._states]
        return self._states[at]

    def __len__(self) -> int:
        return len(self._states)

    def __iadd__(self, piece: str | Piece) -> "Forks":
        for state in self._states:
            state += piece
        return self

    def join(self) -> list[str]:
        """Run all of them; what each has added since the fork, in order. Raises as reading."""
        pairs = zip(self._states, self._began, strict=True)
        return [state.text[len(began.before()) + len(began.text or "") :] for state, began in pairs]


def _named(error: IngotError, part: Part) -> IngotError:
    """The error of a request, saying which part it was; others are nobody's fault."""
    if isinstance(error, RequestError) and not isinstance(part, str) and part.name is not None:
        return RequestError(f"{part.name}: {error}", error.param)
    return error


def _shown(place: _Place) -> str:
    if place.text is not None:
        return place.text
    return place.part if isinstance(place.part, str) else f"<{place.part.name or '?'}>"
