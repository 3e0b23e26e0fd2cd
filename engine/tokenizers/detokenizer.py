"""Token ids to text, a piece at a time: text only grows and never holds half a character.

Owns what each token adds to a text (`Pieces`) and the running state of one text (`Detokenizer`).
Knows nothing of stop strings, requests or files.

Every decoder in use comes down to bytes: byte-level BPE writes "é" as "Ã©", a letter for each
byte; sentencepiece writes " a" as "▁a" and unknown characters as "<0xE2>" "<0x82>" "<0xAC>".
So a token is looked up once as bytes, and a text is one UTF-8 stream whose last, incomplete
character waits. This costs one dictionary look-up a token, however long the text or a run of
broken bytes is, and needs no window that is decoded twice.

The result is what `tokenizers` decodes, with one exception on purpose: there, one broken byte in
a run of "<0x..>" tokens spoils the whole run, also characters that were already complete. Those
have long been streamed here, so they stay, as in sentencepiece itself.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer as Backend

from models.errors import UnsupportedError

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MAX_ID = 2**32 - 1
_ENOUGH_BYTES = 4  # an incomplete character is at most 3 bytes


def byte_letters() -> dict[int, str]:
    """Byte -> the letter that stands for it in byte-level BPE: {32: "Ġ", 97: "a", ...} (GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    shifted = {byte: chr(256 + place) for place, byte in enumerate(others)}
    return {byte: chr(byte) for byte in printable} | shifted


def _letters_to_bytes() -> dict[int, str]:
    """Translation of letters to Latin-1; what is no letter goes where Latin-1 does not reach."""
    table = dict.fromkeys(range(256), "\uffff")
    return table | {ord(letter): chr(byte) for byte, letter in byte_letters().items()}


_LETTERS_TO_BYTES = _letters_to_bytes()


@dataclass(frozen=True, slots=True)
class _Rules:
    """How the strings of a vocabulary become text; read from the `decoder` of tokenizer.json."""

    byte_level: bool = False
    byte_fallback: bool = False
    replacements: tuple[tuple[str, str], ...] = ()
    first_drops: str = ""  # the first token loses this character: "▁Once" -> "Once"
    strip: int = 0  # spaces that the whole text loses at its start
    separator: bytes = b""
    continues: str = ""  # what a token that continues a word begins with: "##ing" (WordPiece)

    def to_bytes(self, token: str) -> bytes:
        if self.continues:
            text = token.removeprefix(self.continues) if token.startswith(self.continues) else (
                " " + token
            )  # fmt: skip
            return text.encode("utf-8", "surrogatepass")
        for old, new in self.replacements:
            token = token.replace(old, new)
        if self.byte_fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(match[1])
        if self.byte_level:
            try:
                return token.translate(_LETTERS_TO_BYTES).encode("latin-1")
            except UnicodeEncodeError:  # an added token that is written as it is: "<a b>"
                pass
        return token.encode("utf-8", "surrogatepass")


def _steps(decoder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if decoder.get("type") == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step)
    else:
        yield decoder


def _read_rules(decoder: dict[str, Any] | None) -> _Rules:
    """Raises `UnsupportedError` for a decoder that is none of those of generative models."""
    if decoder is None:
        return _Rules(separator=b" ")
    settings: dict[str, Any] = {"replacements": ()}
    fused = False
    for step in _steps(decoder):
        match step:
            case {"type": "ByteLevel"}:
                settings["byte_level"] = True
            case {"type": "ByteFallback"}:
                settings["byte_fallback"] = True
            case {"type": "Fuse"}:
                fused = True
            case {"type": "Replace", "pattern": {"String": old}, "content": new} if not fused:
                settings["replacements"] += ((old, new),)
            case {"type": "WordPiece", "prefix": str(prefix)} if prefix:
                settings |= {"continues": prefix, "first_drops": " "}
            case {"type": "Metaspace", "replacement": mark, "prepend_scheme": scheme}:
                settings["replacements"] += ((mark, " "),)
                settings["first_drops"] = "" if scheme == "never" else mark
            case {"type": "Strip", "content": " ", "start": start, "stop": 0} if fused:
                settings["strip"] = start
            case _:
                raise UnsupportedError(
                    f"The tokenizer's decoder step {json.dumps(step)[:200]} is not supported; "
                    "ByteLevel, WordPiece, Metaspace and Replace + ByteFallback + Fuse + Strip are."
                )
    return _Rules(**settings)


class Pieces:
    """The vocabulary seen from its end: the bytes that each id adds to a text."""

    def __init__(self, backend: Backend, special_ids: frozenset[int]) -> None:
        state = backend.decoder.__getstate__() if backend.decoder else b"null"
        self.rules = _read_rules(json.loads(state))
        self.special_ids = special_ids
        self._backend = backend
        self._bytes: dict[int, bytes | None] = {}

    def __getitem__(self, token_id: int) -> bytes | None:
        """Bytes of a token within a text; None for an id that the vocabulary does not have."""
        if token_id not in self._bytes:
            token = self._token(token_id)
            self._bytes[token_id] = None if token is None else self.rules.to_bytes(token)
        return self._bytes[token_id]

    def first(self, token_id: int) -> bytes | None:
        """Bytes of a token that begins a text: a space that only marks a word may be missing."""
        token = self._token(token_id)
        if token is None or not self.rules.first_drops:
            return self[token_id]
        if self.rules.continues:
            return self.rules.to_bytes(token).removeprefix(b" ")
        return self.rules.to_bytes(token.replace(self.rules.first_drops, ""))

    def bare(self, token_id: int) -> bytes:
        """Bytes of a special token without any space that the decoder would put before it."""
        return (self._token(token_id) or "").encode("utf-8", "surrogatepass")

    def _token(self, token_id: int) -> str | None:
        return self._backend.id_to_token(token_id) if 0 <= token_id <= _MAX_ID else None


class Detokenizer:
    """One growing text that continues a prompt.

    The pieces that `append` returns, and at the end `flush`, add up to the text of prompt and
    output without the text of the prompt: after a prompt, "▁world" is " world" and not "world",
    and a character that the prompt began is given whole.
    """

    def __init__(
        self,
        pieces: Pieces,
        prompt_token_ids: Sequence[int] = (),
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> None:
        """Some decoders put a space before each token; `spaces_between_special_tokens` False has
        none between two special ones."""
        self._pieces = pieces
        self._glued = frozenset() if spaces_between_special_tokens else pieces.special_ids
        self._after_glued = False
        self._skipped = pieces.special_ids if skip_special_tokens else frozenset()
        self._first = True
        self._strip = pieces.rules.strip
        self._pending = b""
        self._follow(prompt_token_ids)

    def append(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens complete; "" while a character is unfinished."""
        return self._decode(b"".join(map(self._next, token_ids)), final=False)

    def flush(self) -> str:
        """What an unfinished character leaves at the end: "" or U+FFFD."""
        return self._decode(b"", final=True)

    def _follow(self, prompt: Sequence[int]) -> None:
        """Take the state that the prompt leaves, from its first and last few tokens."""
        for token_id in prompt:
            self._next(token_id)
            if not self._first and not self._strip:
                break
        written = (token_id for token_id in reversed(prompt) if token_id not in self._skipped)
        self._after_glued = next(written, None) in self._glued
        tail = b""
        for token_id in reversed(prompt):
            if token_id not in self._skipped:
                tail = (self._pieces[token_id] or b"") + tail
            if len(tail) >= _ENOUGH_BYTES:
                break
        self._decode(tail, final=False)

    def _next(self, token_id: int) -> bytes:
        if token_id in self._skipped:
            return b""
        data = self._pieces.first(token_id) if self._first else self._pieces[token_id]
        if data is None:
            return b""
        after_glued, self._after_glued = self._after_glued, token_id in self._glued
        if after_glued and self._after_glued:
            data = self._pieces.bare(token_id)
        elif not self._first:
            data = self._pieces.rules.separator + data
        self._first = False
        return self._stripped(data) if self._strip else data

    def _stripped(self, data: bytes) -> bytes:
        while self._strip and data:
            if not data.startswith(b" "):
                self._strip = 0
            else:
                data, self._strip = data[1:], self._strip - 1
        return data

    def _decode(self, data: bytes, *, final: bool) -> str:
        data = self._pending + data
        texts: list[str] = []
        while True:
            try:
                text, used = codecs.utf_8_decode(data, "strict", final)
            except UnicodeDecodeError as error:
                texts.append(data[: error.start].decode())
                texts.append("\ufffd" * self._marks(error.end - error.start))
                data = data[error.end :]
            else:
                self._pending = data[used:]
                return "".join([*texts, text])

    def _marks(self, broken: int) -> int:
        """Byte fallback marks every broken byte, byte-level BPE every broken character."""
        return broken if self._pieces.rules.byte_fallback else 1


def decode(pieces: Pieces, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
    """The whole text of `token_ids` at once."""
    state = Detokenizer(pieces, skip_special_tokens=skip_special_tokens)
    return state.append(token_ids) + state.flush()
