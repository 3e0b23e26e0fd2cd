"""`ingot check MODEL` of models that give vectors: embeddings, classes, rewards.

Owns the order of the checks: what the engine gives for a text, or a cross-encoder for a pair, its
layers, and both beside transformers.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console

from engine.errors import EngineError
from serve.commands.check_report import (
    not_compared,
    prompt_ids,
    same_ids,
    show_differences,
    show_findings,
    show_first_far,
    tolerance_of,
)

if TYPE_CHECKING:
    import numpy as np

    from engine import LLM
    from engine.check.trace import Trace

SECOND = "A dog that is lazy lets a fox jump over it."  # beside the prompt, for cross-encoders


@dataclass(frozen=True)
class _Asked:
    """What the engine was asked, and gave: [W], or a vector a token."""

    texts: tuple[str, ...]  # none where ids were asked
    ids: list[int]
    types: list[int]
    vector: "np.ndarray"


def check_pooler(console: Console, llm: "LLM", prompt: str, tolerance: float | None) -> int:
    """Check, compare and show; returns the exit code."""
    from engine.check.pooling_trace import trace_pooler
    from engine.check.reference import NoReferenceError
    from engine.check.soundness import Finding, check_activations, check_tokens

    try:
        asked = _ask(llm, prompt)
    except EngineError as error:
        return _show_where(console, llm, prompt, str(error))
    traced = trace_pooler(llm.pooling_core.model, asked.ids, asked.types, asked.vector)
    shape = " x ".join(map(str, asked.vector.shape))
    findings = [
        check_activations(traced),
        check_tokens(llm.get_tokenizer()),
        Finding(traced.what, "ok", f"{shape} numbers"),
    ]
    show_findings(console, findings)
    right = all(finding.verdict != "failed" for finding in findings)
    try:
        equal = _compare(console, llm, asked, traced, tolerance or tolerance_of(llm))
    except NoReferenceError as error:
        not_compared(console, str(error))
        return 0 if right else 1
    return 0 if right and equal else 1


def _show_where(console: Console, llm: "LLM", prompt: str, why: str) -> int:
    """The engine gave no vector: which layer gives no numbers; returns the exit code."""
    import numpy as np

    from engine.check.pooling_trace import trace_pooler
    from engine.check.soundness import Finding, check_activations

    nothing = np.full(1, np.nan, np.float32)
    traced = trace_pooler(llm.pooling_core.model, prompt_ids(llm, prompt), [], nothing)
    show_findings(console, [check_activations(traced), Finding(traced.what, "failed", why)])
    return 1


def _ask(llm: "LLM", prompt: str) -> _Asked:
    """Scores are those before they become probabilities, in which differences would vanish."""
    from engine import PoolingParams

    info, tokenizer = llm.info, llm.get_tokenizer()
    params = PoolingParams(use_activation=False) if info.task == "classify" else PoolingParams()
    tag = llm.pooling_core.model.spec.step_tag_id  # a step ends, or there is nothing to score
    if tokenizer is None or tag is not None:
        ids = prompt_ids(llm, prompt) + ([] if tag is None else [tag])
        [given] = llm.encode([ids], params)
        return _Asked((), given.prompt_token_ids, [], given.outputs.data)
    prompt, second = (one.lower() if info.lower_case else one for one in (prompt, SECOND))
    if info.task == "classify" and info.embedding_size == 1 and not info.per_token:
        return _ask_pair(llm, prompt, second)
    [given] = llm.encode([prompt], params)
    return _Asked((prompt,), given.prompt_token_ids, [], given.outputs.data)


def _ask_pair(llm: "LLM", first: str, second: str) -> _Asked:
    import numpy as np

    from engine import PoolingParams

    [given] = llm.score(first, second, pooling_params=PoolingParams(use_activation=False))
    tokenizer, types = llm.get_tokenizer(), list[int]()
    if tokenizer is not None and llm.info.takes_token_types:
        types = tokenizer.encode_pair(first, second)[1]
    score = np.array([given.outputs.score], np.float32)
    return _Asked((first, second), given.prompt_token_ids, types, score)


def _compare(
    console: Console, llm: "LLM", asked: _Asked, traced: "Trace", tolerance: float
) -> bool:
    """Show how far the two lie apart; whether vectors and ids are the same."""
    from engine.check.comparing import differences
    from engine.check.pooling_reference import load_pooling_reference

    reference = load_pooling_reference(llm.pooling_core.model)
    rows = differences(traced, reference.trace(asked.ids, asked.types))
    show_differences(console, reference.opened.name, rows, tolerance)
    known = reference.opened.encode(*asked.texts) if asked.texts else None
    findings = [] if known is None else [same_ids(asked.ids, known)]
    show_findings(console, findings)
    show_first_far(console, rows, tolerance)
    right = all(finding.verdict == "ok" for finding in findings)
    return right and rows[-1].within(tolerance)
