"""Which beginnings of conversations a backend has seen, approximately and in bounded memory.

    "You are a helpful ..."  ──64 bytes a block──▶  h1, h2 = hash(h1, block 2), h3, ...

A block's hash stands for everything up to its end, so a set of hashes is a prefix tree. Two texts
with one hash cost a cache miss and nothing else. Owns what of a request counts as its beginning.
"""

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from serve.protocol.decoding import MAX_ID_CHARS

BLOCK_BYTES = 64
MAX_BLOCKS = 1024  # a beginning that is longer is told apart by its first 64 KiB
MAX_HASHES = 65_536  # of one backend

_IN_PROMPT_ORDER = (
    "model", "lora_path", "cache_salt", "tools", "system", "instructions",
    "messages", "prompt", "query", "input", "text", "input_ids", "token_ids",
)  # fmt: skip
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Beginning(msgspec.Struct, frozen=True):
    """What of a body decides where it goes."""

    hashes: Sequence[int] = ()
    previous_response_id: str | None = None
    session: str | None = None  # as `session_of` calls it
    family: str | None = None  # vLLM's session_id: requests of one name belong together


def session_of(name: object) -> str | None:
    """What a session of that id is called among all that only one backend keeps."""
    return f"session {name}" if isinstance(name, str) else None


def beginning_of(body: bytes) -> Beginning:
    """Of any JSON body; what is no JSON object has none, and its backend says what is wrong."""
    try:
        fields = _fields.decode(body)
        previous, params, name = (
            msgspec.json.decode(fields.get(each, b"null"))
            for each in ("previous_response_id", "session_params", "session_id")
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Beginning()
    # without the closing bracket: the next turn is written before it
    parts = [bytes(fields[name]).removesuffix(b"]") for name in _IN_PROMPT_ORDER if name in fields]
    kept = params.get("id") if isinstance(params, dict) else name
    return Beginning(
        block_hashes(b"".join(parts)),
        previous if isinstance(previous, str) else None,
        session_of(kept),
        name[:MAX_ID_CHARS] if isinstance(name, str) and name else None,
    )


def block_hashes(text: bytes) -> list[int]:
    """Of each whole block, together with all before it."""
    hashes: list[int] = []
    last = 0
    for end in range(BLOCK_BYTES, min(len(text), MAX_BLOCKS * BLOCK_BYTES) + 1, BLOCK_BYTES):
        last = hash((last, text[end - BLOCK_BYTES : end]))
        hashes.append(last)
    return hashes


class SeenPrefixes:
    """The newest `max_hashes` blocks that a backend was sent."""

    def __init__(self, max_hashes: int = MAX_HASHES) -> None:
        self._max_hashes = max_hashes
        self._seen: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._seen)

    def match(self, hashes: Sequence[int]) -> int:
        """How many blocks of a beginning it has seen in a row."""
        for count, each in enumerate(hashes):
            if each not in self._seen:
                return count
        return len(hashes)

    def add(self, hashes: Sequence[int]) -> None:
        """It is sent this beginning; the first blocks of one are forgotten last."""
        for each in reversed(hashes):
            self._seen[each] = None
            self._seen.move_to_end(each)
        while len(self._seen) > self._max_hashes:
            self._seen.popitem(last=False)

    def clear(self) -> None:
        """It was started anew, and its cache is empty."""
        self._seen.clear()
