"""`suffix`: the text after a gap, for models that were trained to fill it.

    prompt "def add(a, b):"   suffix "return c"   ->   <|fim_prefix|>…<|fim_suffix|>…<|fim_middle|>

How a model marks the parts shows in its vocabulary. Owns these marks; knows no request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.errors import RequestError
from engine.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Infill:
    """The marks before what precedes the gap, before what follows it, and before the gap's text.

    Without a `middle` the suffix comes first. `ends` are tokens with which some models end it.
    """

    prefix: str
    suffix: str
    middle: str | None
    ends: tuple[str, ...] = ("<|endoftext|>", "<|file_sep|>", "<|file_separator|>")


_FORMATS = (
    Infill("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),  # Qwen Coder, CodeGemma
    Infill("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),  # StarCoder 1 and 2, Granite Code
    Infill("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),  # SantaCoder
    Infill("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),  # DeepSeek Coder
    Infill("▁<PRE>", "▁<SUF>", "▁<MID>", ends=("▁<EOT>",)),  # Code Llama
    Infill("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),  # GLM, CodeGeeX
    Infill("[PREFIX]", "[SUFFIX]", None),  # Codestral
)


def infill_of(tokenizer: Tokenizer | None) -> tuple[Tokenizer, Infill]:
    """How the model fills gaps; raises RequestError if its tokenizer has no marks for it."""
    for each in _FORMATS if tokenizer else ():
        names = filter(None, (each.prefix, each.suffix, each.middle))
        if tokenizer and all(tokenizer.token_id(name) is not None for name in names):
            return tokenizer, each
    raise RequestError(
        "suffix needs a model that was trained to fill gaps, and this one's tokenizer has no "
        "tokens to mark one; leave it out.",
        "suffix",
    )


def fill_in(
    tokenizer: Tokenizer,
    form: Infill,
    before: Sequence[int],
    after: Sequence[int],
    add_special: bool,
) -> list[int]:
    """The prompt of a gap; `before` and `after` without what begins and ends a text.

    `add_special`: put before it what this tokenizer begins texts with.
    """
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    begins = first if add_special and tokenizer.encode("")[:1] == first else []
    prefix, suffix = _mark(tokenizer, form.prefix), _mark(tokenizer, form.suffix)
    if form.middle is None:
        return [*begins, *suffix, *after, *prefix, *before]
    return [*begins, *prefix, *before, *suffix, *after, *_mark(tokenizer, form.middle)]


def ends_of(tokenizer: Tokenizer, form: Infill) -> list[int]:
    """Tokens that end the gap's text."""
    return [token for name in form.ends for token in _mark(tokenizer, name)]


def _mark(tokenizer: Tokenizer, name: str) -> list[int]:
    token = tokenizer.token_id(name)
    return [] if token is None else [token]
