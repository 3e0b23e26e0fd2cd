"""A grammar against a vocabulary: which tokens may follow, and which must.

    Vocabulary      the tokenizer and the end-of-text ids as llguidance sees them; one a model
    compile_grammar a matcher at its start; raises for what cannot be compiled
    Constraint      one sequence's matcher: `advance` moves it on and fills its mask

llguidance works lazily: compiling is quick, and each step's work is bounded by `_LIMITS`. Knows
nothing of requests and steps; everything here may run in any thread, one at a time for a matcher.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from numpy.typing import NDArray

from engine.errors import RequestError
from engine.tokenizers.tokenizer import Tokenizer
from models.errors import UnsupportedError

Words = NDArray[np.int32]
# A step of at most about 20 ms, a lexer of at most about 60 MB (measured by llguidance's authors:
# 14k units of fuel or 20k items a millisecond, 1 to 2 kB a state).
_LIMITS = LLParserLimits(
    step_lexer_fuel=200_000, step_max_items=50_000, max_lexer_states=40_000, verbose_errors=False
)
_UNKNOWN_KEYS = re.compile(r"Unimplemented keys: \[(.*)\]")
_LONGEST_ERROR = 400
_NO_TOKEN = "the model's vocabulary cannot write what must come next"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A model's tokens; `num_words` 32-bit words hold a bit for each column of its logits."""

    tokens: LLTokenizer
    num_words: int
    buffer_words: int  # as llguidance counts, which may know more tokens than there are columns

    def token_bytes(self, token_id: int) -> bytes:
        """What a token adds to a text; special tokens their names."""
        return self.tokens.decode_bytes([token_id])


def make_vocabulary(
    tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Collection[int]
) -> Vocabulary:
    """The vocabulary of a model with `vocab_size` columns of logits.

    Raises `UnsupportedError` for a model that cannot end a text, or whose tokenizer has no bytes
    for its tokens.
    """
    eos = sorted(eos_token_ids)
    if not eos and tokenizer.eos_token_id is not None:
        eos = [tokenizer.eos_token_id]
    if not eos:
        raise UnsupportedError("Structured outputs need a model with an end-of-text token.")
    size = max(vocab_size, tokenizer.vocab_size)
    try:
        tokens = LLTokenizer(tokenizer.to_json(), n_vocab=size, eos_token=eos)
    except ValueError:  # a decoder that it does not know
        raise UnsupportedError(
            "structured outputs cannot follow this model's tokenizer, for the bytes of its tokens "
            "are not known"
        ) from None
    return Vocabulary(tokens, _words(vocab_size), _words(size))


def load_vocabulary(folder: Path, vocab_size: int, eos_token_ids: Collection[int]) -> Vocabulary:
    """The vocabulary of the model in `folder`; raises `RequestError` if it has no tokenizer."""
    tokenizer = Tokenizer.load(folder)
    if tokenizer is None:
        raise RequestError("this model has no tokenizer")
    return make_vocabulary(tokenizer, vocab_size, eos_token_ids)


def compile_grammar(vocabulary: Vocabulary, source: str) -> LLMatcher:
    """A matcher at the beginning of `source`; raises `RequestError` saying what is wrong."""
    matcher = LLMatcher(vocabulary.tokens, source, log_level=0, limits=_LIMITS)
    if matcher.is_error():
        raise RequestError(_reason(matcher))
    return matcher


def check_grammar(vocabulary: Vocabulary, source: str) -> None:
    """Raise `RequestError` unless `source` compiles and a first token can be chosen."""
    Constraint(vocabulary, compile_grammar(vocabulary, source)).begin()


class Constraint:
    """Where one sequence stands in its grammar.

    `mask` says what may be sampled next, a bit a token; it holds when `finished` is False, and
    while `ready`, which whoever calls `advance` keeps. `slow`: the last call took long. `jump`
    is whether tokens that must come next are given by `begin` and `advance` and not left to the
    model. `stop_token_ids` may be sampled wherever the text may end.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        matcher: LLMatcher,
        *,
        jump: bool = True,
        stop_token_ids: Iterable[int] = (),
    ) -> None:
        self.mask: Words = np.zeros(vocabulary.num_words, np.int32)
        self.finished = False
        self.ready = self.slow = False
        self._buffer: Words = np.zeros(vocabulary.buffer_words, np.int32)
        self._matcher = matcher
        self._jump = jump
        self._stops = _bits(stop_token_ids, vocabulary.num_words)

    def begin(self) -> list[int]:
        """Fill the first mask; returns the tokens with which the text must begin."""
        return self._look_ahead()

    def advance(self, token_id: int) -> list[int]:
        """Take a sampled token and fill the next mask; returns the tokens that must follow it.

        Raises `RequestError` if the grammar became too complex, or cannot be continued.
        """
        if not self._matcher.consume_token(token_id):
            raise RequestError(_reason(self._matcher))
        return self._look_ahead()

    def _look_ahead(self) -> list[int]:
        matcher = self._matcher
        forced = matcher.compute_ff_tokens()
        if forced:  # of what must come, the tokenizer may know no token that spells it
            num_valid = matcher.validate_tokens(forced)
            if num_valid == 0:
                raise RequestError(_NO_TOKEN)
            forced = forced[:num_valid] if self._jump else []
            matcher.consume_tokens(forced)
        self.finished = matcher.is_stopped()
        if not self.finished:
            self._fill()
        elif matcher.is_error():
            raise RequestError(_reason(matcher))
        return forced

    def _fill(self) -> None:
        buffer = self._buffer
        self._matcher.unsafe_compute_mask_ptr(buffer.ctypes.data, buffer.nbytes)
        if self._matcher.is_error():
            raise RequestError(_reason(self._matcher))
        self.mask[:] = buffer[: len(self.mask)]
        if self._matcher.is_accepting():
            self.mask |= self._stops
        elif not self.mask.any():
            raise RequestError(_NO_TOKEN)


def _bits(ids: Iterable[int], num_words: int) -> Words:
    words = np.zeros(num_words, np.uint32)
    for token in ids:
        words[token // 32] |= np.uint32(1 << token % 32)
    return words.view(np.int32)


def _words(size: int) -> int:
    return -(-size // 32)


def _reason(matcher: LLMatcher) -> str:
    """What llguidance says, on one line."""
    said = matcher.get_error().replace("<non-verbose/>", "")
    lines = [line.strip() for line in said.splitlines() if " | " not in line]
    text = " ".join(line for line in lines if line.strip("^ "))
    if text.startswith("NoExtension"):
        return "no text satisfies it"
    if unknown := _UNKNOWN_KEYS.fullmatch(text):
        return f"a schema has {unknown[1]}, which no grammar can keep to; leave it out"
    if text.startswith("oneOf"):
        return 'a schema has "oneOf" whose alternatives may hold at once; use anyOf'
    return text[:_LONGEST_ERROR] or "it is too complex"
