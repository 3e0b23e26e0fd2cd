"""A model's tokenizer: strings to token ids, and what each id looks like.

Owns the vocabulary, its special tokens and the chat template sources that lie beside it. Knows
nothing of requests; reading the files is `tokenizer_files`, growing texts are `detokenizer`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from tokenizers import Encoding
from tokenizers import Tokenizer as Backend

from engine.errors import RequestError
from engine.tokenizers.detokenizer import Detokenizer, Pieces, decode
from engine.tokenizers.gguf_tokenizer import read_gguf_tokenizer
from engine.tokenizers.token_guard import TokenGuard
from engine.tokenizers.tokenizer_files import TokenizerFiles, has_tokenizer_files, read_tokenizer
from models.gguf.checkpoint import is_gguf

Side = Literal["left", "right"]


def has_tokenizer(folder: Path) -> bool:
    """Whether a model folder or GGUF file seems to have one; `Tokenizer.load` knows."""
    return is_gguf(folder) or has_tokenizer_files(folder)


class Tokenizer:
    """Text to ids and back, as the model was trained; safe to share between threads."""

    def __init__(self, files: TokenizerFiles) -> None:
        self._backend = files.backend
        self.special_tokens: Mapping[str, str] = files.special_tokens
        """`bos_token`, `eos_token`, ... as text, for chat templates; absent ones are missing."""
        self.chat_templates: Mapping[str, str] = files.chat_templates
        """Jinja sources by name; a model with one template calls it "default"."""
        added = self._backend.get_added_tokens_decoder()
        self.special_ids = frozenset(id for id, token in added.items() if token.special)
        self.guard = TokenGuard(added.values())
        """Keeps the texts of a conversation from spelling special tokens."""
        self._pieces = Pieces(self._backend, self.special_ids)
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        """One more than the largest id; a model may have more columns than this."""
        self._longest_token = max(map(len, vocabulary), default=1)  # "Ġnaïve" counts bytes

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer | None":
        """The tokenizer of a model folder or GGUF file; None without one (ids in, ids out only).

        Raises `CheckpointError` for files that are malformed, `UnsupportedError` for kinds that
        are not implemented.
        """
        files = read_gguf_tokenizer(folder) if is_gguf(folder) else read_tokenizer(folder)
        return None if files is None else cls(files)

    @property
    def bos_token_id(self) -> int | None:
        return self._special_id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._special_id("eos_token")

    @cached_property
    def _reading_marks(self) -> Backend:
        return self.guard.reading_marks(self._backend)

    def max_chars(self, max_tokens: int) -> int:
        """Characters that `max_tokens` tokens can stand for; a longer text cannot fit.

        Checked before tokenising, it bounds the work for any text. The work itself is linear, also
        for one endless word: about a second for a million letters or spaces. (Tokens that swallow
        any number of characters, as runs of unknown ones do, count as their names.)
        """
        return max_tokens * self._longest_token

    def encode(
        self, text: str, add_special_tokens: bool = True, *, marked: bool = False
    ) -> list[int]:
        """Ids of `text`; `add_special_tokens` adds what the model expects around a text (BOS).

        The names of special tokens in `text` become those tokens, as in transformers and as
        rendered chat templates need; those in which `guard` has put its mark, where `marked` says
        that it has been at work, are plain text. Raises `RequestError` for a text that is no
        Unicode (a lone surrogate).
        """
        backend = self._reading_marks if marked else self._backend
        try:
            # Only the batch functions let other threads run meanwhile.
            [encoding] = backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        except TypeError:
            raise RequestError("The text holds a lone surrogate, which is no character.") from None
        return encoding.ids

    def encode_pair(
        self,
        first: str,
        second: str | None,
        *,
        add_special_tokens: bool = True,
        max_tokens: int | None = None,
        marked: bool = False,
        most: Sequence[int | None] = (),
        cut: Side = "right",
    ) -> tuple[list[int], list[int]]:
        """Ids of a text or of a pair of texts, and of which text (0, 1) each is.

        Each text keeps as many tokens as `most` says for it, None being all. Longer than
        `max_tokens`, the longer text loses its end, or its beginning if the left one is `cut`, and
        what the model expects around texts is kept; `marked` as for `encode`. Raises `RequestError`
        for a text that is no Unicode.
        """
        texts = [first] if second is None else [first, second]
        try:
            backend = self._reading_marks if marked else self._backend
            parts = backend.encode_batch(texts, add_special_tokens=False)
        except TypeError:
            raise RequestError("The text holds a lone surrogate, which is no character.") from None
        for part, longest in zip(parts, most, strict=False):
            if longest is not None:
                part.truncate(longest)
        if max_tokens is not None:
            added = self._backend.num_special_tokens_to_add(second is not None)
            _cut(parts, max_tokens - added if add_special_tokens else max_tokens, cut)
        whole = self._backend.post_process(
            parts[0], None if second is None else parts[1], add_special_tokens
        )
        return whole.ids, whole.type_ids

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Text of `token_ids`; ids outside the vocabulary add nothing."""
        return decode(self._pieces, token_ids, skip_special_tokens=skip_special_tokens)

    def detokenizer(
        self,
        prompt_token_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> Detokenizer:
        """The state of a text that continues `prompt_token_ids`."""
        return Detokenizer(
            self._pieces,
            prompt_token_ids,
            skip_special_tokens=skip_special_tokens,
            spaces_between_special_tokens=spaces_between_special_tokens,
        )

    def token_bytes(self, token_id: int) -> bytes:
        """UTF-8 bytes of one token, " a" with its space; they may be part of a character."""
        return self._pieces[token_id] or b""

    def token_text(self, token_id: int) -> str:
        """One token as text, for logprobs; U+FFFD where its bytes are part of a character."""
        return self.token_bytes(token_id).decode("utf-8", "replace")

    @property
    def special_token_ids(self) -> dict[str, int]:
        """Names of all special tokens, those that no role has included, and their ids."""
        added = self._backend.get_added_tokens_decoder()
        return {token.content: id for id, token in added.items() if token.special}

    @property
    def mark_ids(self) -> dict[str, int]:
        """Names and ids of tokens that a grammar takes for marks and not for text: special ones,
        and, as llguidance has it, added ones between < and >, which <think> and <tool_call> are."""
        added = self._backend.get_added_tokens_decoder()
        return {
            token.content: id
            for id, token in added.items()
            if token.special or (token.content.startswith("<") and token.content.endswith(">"))
        }

    def to_json(self) -> str:
        """The whole tokenizer as a tokenizer.json."""
        return self._backend.to_str()

    def token_id(self, token: str) -> int | None:
        """Id of a token by its name in the vocabulary: "<|im_end|>"; None if there is none."""
        return self._backend.token_to_id(token)

    def _special_id(self, role: str) -> int | None:
        token = self.special_tokens.get(role)
        return None if token is None else self._backend.token_to_id(token)


def _cut(parts: Sequence[Encoding], room: int, side: Side) -> None:
    """Leave at most `room` tokens in one or two encodings, the longer one giving first."""
    if sum(map(len, parts)) <= room:
        return
    room = max(0, room)
    if len(parts) == 1:
        parts[0].truncate(room, direction=side)
        return
    shorter, longer = sorted(parts, key=len)
    keep = min(len(shorter), room // 2)
    shorter.truncate(keep, direction=side)
    longer.truncate(room - keep, direction=side)
