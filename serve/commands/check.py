"""`ingot check MODEL`: whether a model loads and computes what transformers computes.

    0   everything that could be checked is right
    1   it loads, and something is wrong
    2   it does not load

Owns the order of the checks; `engine/check/` answers, and `check_report.py` shows it. Models that
give vectors are `check_pooling.py`'s.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from serve.commands.check_pooling import check_pooler
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
    from engine.check.reference import Reference
    from engine.check.soundness import Finding
    from engine.check.trace import Source, Trace

PROMPT = "The quick brown fox jumps over the lazy dog, and then"
STEP = 64  # tokens: fewer programs to compile


def check_model(
    console: Console, prompt: str, max_tokens: int, tolerance: float | None, **settings: Any
) -> int:
    """Load, check, compare and show; returns the exit code. Raises IngotError if it cannot load."""
    from engine import LLM

    with LLM(max_num_seqs=1, max_num_batched_tokens=STEP, **settings) as llm:
        info = llm.info
        title = f"[bold]{escape(str(llm.model))}[/]  {info.architecture}, {info.dtype}"
        console.print(title, highlight=False)
        if info.task != "generate":
            return check_pooler(console, llm, prompt, tolerance)
        return _check(console, llm, prompt, max_tokens, tolerance)


@dataclass(frozen=True)
class _Asked:
    """What a model is run over, and what it wrote.

    ids: of the prompt. An encoder reads `read`, which is these ids or a spectrogram, and its
        decoder begins with `begin`; without one the text goes on.
    """

    ids: list[int]
    read: "Source | None"
    begin: list[int]
    written: list[int]


def _check(
    console: Console, llm: "LLM", prompt: str, max_tokens: int, tolerance: float | None
) -> int:
    from engine.check.reference import NoReferenceError, load_reference
    from engine.check.trace import trace

    ids, info = prompt_ids(llm, prompt), llm.info
    read = _noise(llm) if info.mel_bins else ids if info.max_encoder_len else None
    begin = [] if read is None else info.decoder_prompt
    tokens = [*begin, *ids][: info.max_model_len]
    written, greedy = _greedy(llm, ids, max_tokens)
    traced = trace(llm.core.model, tokens, read)
    findings = [*_soundness(llm, traced), greedy]
    sound = all(finding.verdict != "failed" for finding in findings)
    show_findings(console, findings)
    try:
        reference = load_reference(llm.core.model.folder, encoder=read is not None)
        theirs = reference.trace(tokens, read)
        known = prompt if llm.get_tokenizer() is not None and not info.mel_bins else None
        asked = _Asked(ids, read, begin, written)
        equal = _compare(
            console, reference, (traced, theirs), known, asked, tolerance or tolerance_of(llm)
        )
    except NoReferenceError as error:
        not_compared(console, str(error))
        return 0 if sound else 1
    return 0 if sound and equal else 1


def _noise(llm: "LLM") -> "np.ndarray":
    """A spectrogram of the length that a model hears: [frames, mels]."""
    import numpy as np

    shape = (2 * llm.info.max_encoder_len, llm.info.mel_bins)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _greedy(llm: "LLM", ids: list[int], count: int) -> "tuple[list[int], Finding]":
    """What the whole engine writes, through its pages and its compiled steps."""
    from engine import SamplingParams
    from engine.check.soundness import Finding

    if llm.info.mel_bins:
        return [], Finding("greedy", "skipped", "the model hears, and there is no recording here")
    params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    given = llm.generate([ids], params, use_tqdm=False)[0].outputs[0]
    written, tokenizer = list(given.token_ids), llm.get_tokenizer()
    if given.finish_reason == "error":
        text = f"ended behind {len(written)} tokens, for what the model gave is no number"
        return written, Finding("greedy", "failed", text)
    return written, Finding(
        "greedy", "ok", repr(tokenizer.decode(written)) if tokenizer else str(written)
    )


def _soundness(llm: "LLM", traced: "Trace") -> "list[Finding]":
    from engine.check import soundness

    tokenizer = llm.get_tokenizer()
    return [
        soundness.check_activations(traced),
        soundness.check_tokens(tokenizer),
        soundness.check_template(tokenizer),
    ]


def _compare(
    console: Console,
    reference: "Reference",
    traces: "tuple[Trace, Trace]",
    prompt: str | None,
    asked: _Asked,
    tolerance: float,
) -> bool:
    """Show how far the two `traces`, ours first, lie apart; whether logits and tokens are the same.

    Without a `prompt` the ids are of no text, and there is nothing to compare them with.
    """
    from engine.check.comparing import differences

    rows, findings = differences(*traces), []
    show_differences(console, reference.name, rows, tolerance)
    if asked.written:
        begin, count = asked.ids if asked.read is None else asked.begin, len(asked.written)
        findings.append(_same_tokens(asked.written, reference.generate(begin, count, asked.read)))
    if prompt is not None and (known := reference.encode(prompt)) is not None:
        findings.append(same_ids(asked.ids, known))
    show_findings(console, findings)
    show_first_far(console, rows, tolerance)
    return rows[-1].within(tolerance) and all(finding.verdict == "ok" for finding in findings)


def _same_tokens(written: list[int], theirs: list[int]) -> "Finding":
    from engine.check.comparing import first_parting
    from engine.check.soundness import Finding

    parting = first_parting(written, theirs)
    if parting is None:
        return Finding("greedy tokens", "ok", f"all {len(written)} are equal")
    text = f"equal until token {parting}, then {written[parting]} instead of {theirs[parting]}"
    return Finding("greedy tokens", "failed", text)
