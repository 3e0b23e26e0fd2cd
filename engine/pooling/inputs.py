"""From what a caller gives to token ids, for vectors: a text, ids, or a pair of texts.

Imports no JAX. How long a sequence may be is the engine's to check.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from engine.errors import RequestError
from engine.messages import ModelInfo
from engine.plain_values import integer
from engine.pooling_params import PoolingParams
from engine.tokenizers.tokenizer import Side, Tokenizer

_SPARE = 8  # a text that is to be cut keeps so many times what the longest tokens could stand for
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolInput:
    """The ids of one sequence, and of which text each is where the model wants to know."""

    token_ids: list[int]
    token_type_ids: list[int]


@dataclass(frozen=True, slots=True)
class InputReader:
    """What the texts of one model go through."""

    tokenizer: Tokenizer | None
    info: ModelInfo

    def text(
        self,
        first: str,
        second: str | None = None,
        *,
        truncate: int | None = None,
        add_special_tokens: bool = True,
        marked: bool = False,
        most: Sequence[int | None] = (None, None),
        cut: Side = "right",
    ) -> PoolInput:
        """Tokenise a text or a pair, cut to `truncate` tokens, -1 being all that the model takes,
        of which each text has as many as `most` says for it. `cut`: which end goes; of what `most`
        is said for it is the right one.

        `marked` as for `Tokenizer.encode`.

        Raises RequestError for an empty text, or one that is too long and not to be cut.
        """
        if self.tokenizer is None:
            raise RequestError("This model has no tokenizer; send token ids.", "input")
        limit = self.limit(truncate)
        longest = self.tokenizer.max_chars(limit or self.info.max_model_len)
        whole = None if limit is None else cut
        texts = [
            self._prepared(text, longest, whole if own is None else "right")
            for text, own in zip((first, second), most, strict=True)
        ]
        ids, types = self.tokenizer.encode_pair(
            texts[0] or "",
            texts[1],
            add_special_tokens=add_special_tokens,
            max_tokens=limit,
            marked=marked,
            most=most,
            cut=cut,
        )
        return PoolInput(ids, types if self.info.takes_token_types and second is not None else [])

    def ids(
        self, ids: Sequence[int], truncate: int | None = None, cut: Side = "right"
    ) -> PoolInput:
        """Ids as they are, or the first or last of them."""
        limit = self.limit(truncate)
        kept = ids[:limit] if limit is None or cut == "right" else ids[-limit:]
        return PoolInput([int(token) for token in kept], [])

    def limit(self, truncate: int | None) -> int | None:
        """Tokens to keep; None keeps all. Raises RequestError for more than the model takes."""
        longest = self.info.max_model_len
        if truncate is None:
            return None
        truncate = integer("truncate_prompt_tokens", truncate)
        if not (truncate == -1 or 1 <= truncate <= longest):
            raise RequestError(
                f"truncate_prompt_tokens must be from 1 to {longest}, or -1 for all that the model "
                f"takes, got {str(truncate)[:40]}.",
                "truncate_prompt_tokens",
            )
        return longest if truncate == -1 else truncate

    def _prepared(self, text: str | None, longest: int, cut: Side | None) -> str | None:
        if text is None:
            return None
        if not text:
            raise RequestError("The input is empty: it must hold some text.", "input")
        if len(text) > longest:
            if cut is None:
                raise RequestError(
                    f"The input has {len(text)} characters, too many for the "
                    f"{self.info.max_model_len} tokens that this model takes; shorten it, or send "
                    "truncate_prompt_tokens -1 to have it cut.",
                    "input",
                )
            room = _SPARE * longest
            text = text[:room] if cut == "right" else text[-room:]
        return text.lower() if self.info.lower_case else text


def match_pairs(first: Sequence[T], second: Sequence[T]) -> list[tuple[T, T]]:
    """One text with each of several, or as many with as many.

    Raises RequestError for other numbers of them.
    """
    if not first or not second:
        raise RequestError("There must be at least one text on each side.", "text_2")
    if len(first) not in (1, len(second)):
        raise RequestError(
            f"{len(first)} texts cannot be paired with {len(second)}; send one, or as many.",
            "text_1",
        )
    firsts = first if len(first) == len(second) else list(first) * len(second)
    return list(zip(firsts, second, strict=True))


def vector_width(info: ModelInfo, params: PoolingParams) -> int:
    """Numbers of one vector."""
    return params.dimensions or info.embedding_size


def check_task(info: ModelInfo, wanted: str) -> None:
    """Raise RequestError if this engine does not do what is wanted: embed, classify, score,
    reward or pool.

    The sentence says which flag would do it.
    """
    if info.task == "generate":
        raise RequestError(
            "This model was started to write text; start it with --runner pooling to get vectors.",
            "model",
        )
    if info.per_token and wanted not in ("pool", "reward"):
        raise RequestError(
            "This model gives a vector a token or step: ask /pooling, or LLM.encode, for them; "
            'with --pooler-config \'{"pooling_type": "LAST"}\' it gives one a text.',
            "model",
        )
    if wanted == "embed" and info.task == "classify":
        raise RequestError(
            "This model gives scores of classes; start it with --convert embed to get embeddings.",
            "model",
        )
    if wanted in ("classify", "reward") and info.task == "embed":
        raise RequestError(
            f"This model ({info.architecture}) gives embeddings and no classes; a model with a "
            "classifier, and without --convert embed, gives them.",
            "model",
        )
    if wanted == "score" and info.task == "classify" and info.embedding_size != 1:
        raise RequestError(
            f"This model has {info.embedding_size} classes; scores of pairs need an embedding "
            "model, or a classifier with one class.",
            "model",
        )
