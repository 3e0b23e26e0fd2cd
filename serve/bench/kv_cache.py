"""`ingot bench kv-cache`: what a smaller KV cache costs in quality, and how much more it holds.

With each kind of cache the same pieces of a text are scored and continued greedily; "auto", what
the model computes in, is what the others are compared with. The text should be one that the model
understands: differences are of log-probabilities, in nats a token.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from engine.config import CACHE_DTYPES
from engine.errors import ConfigError
from engine.sampling.params import SamplingParams
from serve.bench.serving import load_tokenizer

if TYPE_CHECKING:
    from engine import LLM

_GIB = 2**30
KINDS = tuple(name for name in CACHE_DTYPES if name != "fp8_e4m3")  # which is fp8

_HEADINGS = (
    "kv cache", "bytes/token", "pages/GiB", "perplexity", "mean diff.", "most", "same",
)  # fmt: skip


def read_pieces(model: str, text: Path, *, length: int, count: int) -> list[list[int]]:
    """At most `count` pieces of `length` tokens; raises ConfigError if there is not one."""
    try:
        content = text.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {text}: {error}.") from None
    ids = load_tokenizer(model).encode(content, add_special_tokens=False)
    if len(ids) < length:
        raise ConfigError(f"{text} has {len(ids)} tokens, fewer than one piece of {length}.")
    starts = range(0, len(ids) - length + 1, length)
    return [ids[start : start + length] for start in starts[:count]]


def measure_kv_cache(
    settings: dict[str, Any], pieces: Sequence[list[int]], *, output_len: int
) -> dict[str, Any]:
    """The numbers of each kind; of one that the model or device does not take, why not."""
    from engine import LLM

    found: dict[str, Any] = {}
    first: tuple[list[float], list[list[int]]] | None = None
    for kind in KINDS:
        try:
            with LLM(**settings, kv_cache_dtype=kind) as llm:
                scores, answers = _scores(llm, pieces), _answers(llm, pieces, output_len)
                capacity = _capacity(llm)
        except ConfigError as error:
            if first is None:
                raise
            found[kind] = {"error": str(error)}
            continue
        first = first or (scores, answers)
        found[kind] = capacity | _compared(scores, answers, *first)
    return found


def table(found: dict[str, Any]) -> Table:
    """A row for each kind."""
    made = Table(box=None, pad_edge=False)
    for heading in _HEADINGS:
        made.add_column(heading, no_wrap=True)
    for kind, row in found.items():
        if "error" in row:
            made.add_row(kind, escape(row["error"]))
            continue
        made.add_row(
            kind, f"{row['bytes_per_token']:.0f}", f"{row['pages_per_gib']}",
            f"{row['perplexity']:.4f}", f"{row['mean_logprob_difference']:.5f}",
            f"{row['max_logprob_difference']:.4f}", f"{row['same_tokens']:.1%}",
        )  # fmt: skip
    return made


def _scores(llm: "LLM", pieces: Sequence[list[int]]) -> list[float]:
    """The log-probability of every token but each piece's first."""
    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    scores: list[float] = []
    for output in llm.generate(list(pieces), params, use_tqdm=False):
        for token, position in zip(
            output.prompt_token_ids[1:], (output.prompt_logprobs or [])[1:], strict=True
        ):
            scores.append(position[token].logprob if position else math.nan)
    return scores


def _answers(llm: "LLM", pieces: Sequence[list[int]], length: int) -> list[list[int]]:
    params = SamplingParams(temperature=0, max_tokens=length, ignore_eos=True)
    outputs = llm.generate([piece[: len(piece) // 2] for piece in pieces], params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def _capacity(llm: "LLM") -> dict[str, Any]:
    info = llm.core.info
    page_bytes = info.kv_cache_bytes // (info.num_pages + 1)  # and the sink
    return {
        "page_size": info.page_size,
        "bytes_per_token": page_bytes / info.page_size,
        "pages_per_gib": _GIB // page_bytes,
    }


def _compared(
    scores: list[float],
    answers: list[list[int]],
    first_scores: list[float],
    first_answers: list[list[int]],
) -> dict[str, float]:
    differences = [abs(a - b) for a, b in zip(scores, first_scores, strict=True)]
    same = [_common(a, b) / len(b) for a, b in zip(answers, first_answers, strict=True)]
    return {
        "perplexity": math.exp(-statistics.fmean(scores)),
        "mean_logprob_difference": statistics.fmean(differences),
        "max_logprob_difference": max(differences),
        "same_tokens": statistics.fmean(same),
    }


def _common(a: list[int], b: list[int]) -> int:
    """Tokens before the first that differs."""
    pairs = enumerate(zip(a, b, strict=True))
    return next((place for place, (x, y) in pairs if x != y), len(a))
