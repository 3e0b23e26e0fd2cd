"""SentencePiece's tokenizers as `tokenizers` backends: pieces with scores, and "▁" for a space.

Owns what is the same whether the pieces lie in a `tokenizer.model` or in a GGUF file: merges that
follow from scores, how spaces become "▁", and the way back. Reads no file.
Source: sentencepiece's bpe_model.cc, unigram_model.cc and normalizer.cc.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of pieces
SPACE = "▁"
MAX_MERGES = 2**22
MAX_LETTERS = 2**28  # in all the ways of cutting pieces in two; Phi-3's 32,000 have 2**20

Prefix = Literal["always", "first", "never"]
"""Whether a "▁" goes before every text between special tokens, before the first only, or none."""


def merges_of_scores(
    pieces: Sequence[str], joined: Sequence[int], scores: np.ndarray
) -> list[tuple[str, str]]:
    """Every way in which a piece is made of two, those of better scores first.

    Args:
        joined: ids of the pieces that may be made of two, and be those two.

    Raises ValueError if there are over `MAX_MERGES`, or pieces are too long to look for them.
    """
    check_lengths([pieces[one] for one in joined])
    ids = {pieces[one]: one for one in joined}
    found: list[tuple[str, str]] = []
    for place in np.argsort(-scores[joined], kind="stable").tolist():
        piece = pieces[joined[place]]
        pairs = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        ways = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        found += sorted(ways, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        if len(found) > MAX_MERGES:
            raise ValueError(f"pieces are made of each other in over {MAX_MERGES} ways")
    return found


def scores_in_texts(scores: Sequence[float], types: Sequence[int]) -> list[float]:
    """ "<0x41>" and "</s>" in a text are letters: whatever else is there is taken before them."""
    found = (NORMAL, USER_DEFINED)
    pairs = list(zip(scores, types, strict=True))
    worst = min((score for score, kind in pairs if kind in found), default=0.0) - 10_000
    return [score if kind in found else worst for score, kind in pairs]


def check_lengths(pieces: Iterable[str | bytes]) -> None:
    """Raise ValueError where cutting every piece in two, in all ways, would take too long."""
    if sum(len(piece) ** 2 for piece in pieces) > MAX_LETTERS:
        raise ValueError("its tokens are longer than those of any vocabulary")


def mark_spaces(
    backend: Backend,
    prefix: Prefix,
    *,
    before: Sequence[normalizers.Normalizer] = (),
    split: bool = False,
) -> None:
    """Let `backend` write spaces as "▁", and texts with spaces again.

    Args:
        before: what is done to a text first.
        split: whether words are looked at one by one, which is faster, and the same where no piece
            has a "▁" behind its first letter.
    """
    steps = [*before]
    if prefix == "always":
        steps.append(normalizers.Prepend(SPACE))
    if prefix == "first":
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=split)
    else:
        steps.append(normalizers.Replace(" ", SPACE))
        if split:
            backend.pre_tokenizer = pre_tokenizers.Split(SPACE, behavior="merged_with_next")
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    text: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix != "never":
        text.append(decoders.Strip(" ", 1, 0))
    backend.decoder = decoders.Sequence(text)


def single_spaces() -> normalizers.Normalizer:
    """None at either end of a text, and one between words."""
    return normalizers.Replace(Regex(r"\A +| +\z| +(?= )"), "")
