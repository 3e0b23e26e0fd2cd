"""SGLang's sessions: the token ids of turns that a server remembers, so that a client sends only
what is new.

    /open_session {}                            "5f0c..."
    {"session_params": {"id": "5f0c..."}}       a first turn; its id is the response's
    {"session_params": {"id": ..., "rid": ...}} goes on behind the turn of that id

Nothing but ids is kept: what was computed of them lies in the prefix cache, as of any prompt. All
is bounded; the session that nobody has used for the longest goes first, and none outlives the
server.
"""

import time
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from msgspec import Struct

from engine.errors import NotFoundError, RequestError
from engine.outputs import OutputDelta

MAX_SESSIONS = 1024
MAX_TURNS = 256  # of one session; then its first go
MAX_TOKENS = 2**24  # of all turns together: 64 MiB
IDLE_SECONDS = 3600.0  # how long an unused session is kept, unless it says less
_FIELD = "session_params"


class SessionParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a request goes on: behind turn `rid` of session `id`, or at a beginning.

    `offset`: how many tokens of what is before are kept (-1: all but the last). `replace`: what
    followed that turn, or without one the whole session, is forgotten. `drop_previous_output`: only
    the prompt of that turn counts.
    """

    id: str
    rid: str | None = None
    offset: int | None = None
    replace: bool | None = None
    drop_previous_output: bool | None = None


@dataclass(slots=True)
class Turn:
    """A prompt, with all that was before it, and what was said to it so far."""

    name: str
    parent: str | None
    prompt: "array[int]"
    output: "array[int]" = field(default_factory=lambda: array("i"))
    heard: bool = False  # the end of it
    finished: bool = False  # and the session knows

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.output)

    def hear(self, delta: OutputDelta) -> None:
        """What the engine added."""
        self.output.extend(delta.token_ids)
        self.heard = delta.finish_reason in ("stop", "length", "repetition")


@dataclass(slots=True)
class Session:
    """Turns by name. Those of a `streaming` session follow one another."""

    streaming: bool
    idle_seconds: float
    turns: OrderedDict[str, Turn] = field(default_factory=OrderedDict)
    used_at: float = field(default_factory=time.monotonic)
    num_tokens: int = 0  # of turns that have finished

    def end(self, turn: Turn) -> None:
        """Keep a turn that has finished, forget one that has not; the first go if they are many."""
        if self.turns.get(turn.name) is not turn:  # it was replaced meanwhile
            return
        if turn.heard:
            turn.finished = True
            self.num_tokens += turn.num_tokens
        else:
            del self.turns[turn.name]
        while len(self.turns) > MAX_TURNS:
            self._forget(next(iter(self.turns)))

    def before(self, params: SessionParams) -> tuple[str | None, "array[int]"]:
        """The turn that a request follows, and the ids that its own come after; turns that it
        replaces are forgotten. Raises RequestError."""
        previous = self._previous(params)
        if params.replace:
            self._forget_behind(None if previous is None else previous.name)
        if previous is None:
            return None, array("i")
        if not previous.finished:
            raise RequestError(f"Turn {previous.name[:80]!a} has not finished.", _FIELD)
        kept = previous.prompt + (array("i") if params.drop_previous_output else previous.output)
        return previous.name, kept[: params.offset] if params.offset else kept

    def _previous(self, params: SessionParams) -> Turn | None:
        if self.streaming:
            for name in ("replace", "drop_previous_output", "offset"):
                if getattr(params, name):
                    raise RequestError(f"{name} is not for sessions that are streaming.", _FIELD)
            return next(reversed(self.turns.values()), None)
        if params.rid is None:
            return None
        if params.rid not in self.turns:
            raise RequestError(
                f"The session has no turn {params.rid[:80]!a} (any more); rid is the id of an "
                "earlier response.",
                _FIELD,
            )
        return self.turns[params.rid]

    def _forget_behind(self, name: str | None) -> None:
        """The turns that follow the one of that name, or all."""
        gone: set[str | None] = {name}
        for turn in list(self.turns.values()):  # none is before the one that it follows
            if name is None or turn.parent in gone:
                gone.add(turn.name)
                self._forget(turn.name)

    def _forget(self, name: str) -> None:
        turn = self.turns.pop(name)
        self.num_tokens -= turn.num_tokens if turn.finished else 0


class Sessions:
    """All of them, by owner and id."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[str, str], Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def open(self, owner: str, name: str, *, streaming: bool, timeout: float | None) -> None:
        """Begin a session of that id; raises RequestError for one that is open."""
        self._tidy()
        if (owner, name) in self._open:
            raise RequestError(f"Session {name[:80]!a} is open.", "session_id")
        idle = IDLE_SECONDS if timeout is None else min(timeout, IDLE_SECONDS)
        self._open[owner, name] = Session(streaming, idle)
        self._tidy()

    def close(self, owner: str, name: str) -> None:
        """Forget it; raises NotFoundError for one that is not open."""
        self._get(owner, name, "session_id")
        del self._open[owner, name]

    @contextmanager
    def turn(
        self, owner: str, params: SessionParams, name: str, ids: Sequence[int], bos: int | None
    ) -> Iterator[Turn]:
        """A turn called `name` with `ids` behind what was before, kept if it finishes.

        Raises RequestError, NotFoundError for a session that is not open.
        """
        self._tidy()
        session = self._get(owner, params.id, _FIELD)
        if name in session.turns:
            raise RequestError(f"The session has a turn {name[:80]!a}; send another rid.", "rid")
        parent, before = session.before(params)
        follows = ids[1:] if before and ids and ids[0] == bos else ids  # a text begins once
        turn = Turn(name, parent, before + array("i", follows))
        session.turns[name] = turn
        try:
            yield turn
        finally:
            session.end(turn)
            self._tidy()

    def _get(self, owner: str, name: str, param: str) -> Session:
        session = self._open.get((owner, name))
        if session is None:
            raise NotFoundError(
                f"There is no session {name[:80]!a} here (any more); open one by POST "
                "/open_session.",
                param,
            )
        session.used_at = time.monotonic()
        self._open.move_to_end((owner, name))
        return session

    def _tidy(self) -> None:
        """Let go of what is old, and of what is too much."""
        now = time.monotonic()
        for key, session in list(self._open.items()):
            idle = now - session.used_at > session.idle_seconds
            if idle and all(turn.finished for turn in session.turns.values()):
                del self._open[key]
        tokens = sum(session.num_tokens for session in self._open.values())
        while self._open and (len(self._open) > MAX_SESSIONS or tokens > MAX_TOKENS):
            tokens -= self._open.popitem(last=False)[1].num_tokens
