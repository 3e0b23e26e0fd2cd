"""`ingot check MODEL`: whether a model loads and computes what transformers computes.

    0   everything that could be checked is right
    1   it loads, and something is wrong
    2   it does not load

Owns the order of the checks and the tables that show them; `engine/check/` answers.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from engine import LLM
    from engine.check.comparing import Difference
    from engine.check.reference import Reference
    from engine.check.soundness import Finding
    from engine.check.trace import Trace

PROMPT = "The quick brown fox jumps over the lazy dog, and then"
STEP = 64  # tokens: fewer programs to compile
WITHOUT_TOKENIZER = 16  # tokens of a prompt that is made of ids
TOLERANCES = {"float32": 1e-3}  # of the deviation; the others compute in 8 or 11 bits
LOOSE = 0.1
_MARKS = {"ok": "[green]ok[/]", "failed": "[red]failed[/]", "skipped": "[yellow]skipped[/]"}


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
            return _check_pooler(console, llm)
        if info.max_encoder_len:
            return _check_encoder(console, llm, prompt, max_tokens)
        return _check_decoder(console, llm, prompt, max_tokens, tolerance)


def _check_decoder(
    console: Console, llm: "LLM", prompt: str, max_tokens: int, tolerance: float | None
) -> int:
    from engine.check.reference import NoReferenceError, load_reference
    from engine.check.trace import trace

    ids = _prompt_ids(llm, prompt)
    written = _greedy(llm, ids, max_tokens)
    traced = trace(llm.core.model, ids)
    findings = _soundness(llm, traced)
    sound = all(finding.verdict != "failed" for finding in findings)
    _show_findings(console, [*findings, _shown_text(llm, written)])
    try:
        reference = load_reference(llm.core.model.folder)
        tolerance = tolerance or TOLERANCES.get(llm.info.dtype, LOOSE)
        known = prompt if llm.get_tokenizer() is not None else None
        equal = _compare(console, reference, traced, known, ids, written, tolerance)
    except NoReferenceError as error:
        _not_compared(console, str(error))
        return 0 if sound else 1
    return 0 if sound and equal else 1


def _check_encoder(console: Console, llm: "LLM", prompt: str, max_tokens: int) -> int:
    """A model whose decoder attends to what an encoder has read: what it writes is compared."""
    from engine.check.reference import NoReferenceError, load_reference
    from engine.check.soundness import check_tokens

    tokens = check_tokens(llm.get_tokenizer())
    right = tokens.verdict != "failed"
    if llm.info.mel_bins:
        _show_findings(console, [tokens])
        _not_compared(console, "the model hears, and there is no recording here")
        return 0 if right else 1
    ids = _prompt_ids(llm, prompt)
    written = _greedy(llm, ids, max_tokens)
    _show_findings(console, [tokens, _shown_text(llm, written)])
    try:
        reference = load_reference(llm.core.model.folder, encoder=True)
        theirs = reference.generate(llm.info.decoder_prompt, len(written), read=ids)
    except NoReferenceError as error:
        _not_compared(console, str(error))
        return 0 if right else 1
    console.print(f"\n[bold]beside {escape(reference.name)}[/]", highlight=False)
    same = _same_tokens(written, theirs)
    _show_findings(console, [same])
    return 0 if right and same.verdict == "ok" else 1


def _check_pooler(console: Console, llm: "LLM") -> int:
    import numpy as np

    from engine.check.soundness import Finding, check_tokens

    vector = np.asarray(llm.encode(PROMPT)[0].outputs.data)
    finite = bool(np.isfinite(vector).all())
    text = f"{vector.size} numbers" if finite else "some are no finite numbers"
    vectors = Finding("vectors", "ok" if finite else "failed", text)
    findings = [vectors, check_tokens(llm.get_tokenizer())]
    _show_findings(console, findings)
    _not_compared(console, "models that give vectors are checked by themselves")
    return 0 if all(finding.verdict != "failed" for finding in findings) else 1


def _not_compared(console: Console, why: str) -> None:
    console.print(f"[yellow]not compared:[/] {escape(why)}.", highlight=False)


def _prompt_ids(llm: "LLM", prompt: str) -> list[int]:
    tokenizer = llm.get_tokenizer()
    if tokenizer is not None:
        return tokenizer.encode(prompt)
    step = max(1, llm.info.vocab_size // WITHOUT_TOKENIZER)
    return [(number * step + 1) % llm.info.vocab_size for number in range(WITHOUT_TOKENIZER)]


def _greedy(llm: "LLM", ids: list[int], count: int) -> list[int]:
    """What the whole engine writes, through its pages and its compiled steps."""
    from engine import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True)
    return list(llm.generate([ids], params, use_tqdm=False)[0].outputs[0].token_ids)


def _soundness(llm: "LLM", traced: "Trace") -> "list[Finding]":
    from engine.check import soundness

    tokenizer = llm.get_tokenizer()
    return [
        soundness.check_activations(traced),
        soundness.check_tokens(tokenizer),
        soundness.check_template(tokenizer),
    ]


def _shown_text(llm: "LLM", written: list[int]) -> "Finding":
    from engine.check.soundness import Finding

    tokenizer = llm.get_tokenizer()
    text = repr(tokenizer.decode(written)) if tokenizer else str(written)
    return Finding("greedy", "ok", text)


def _compare(
    console: Console,
    reference: "Reference",
    traced: "Trace",
    prompt: str | None,
    ids: list[int],
    written: list[int],
    tolerance: float,
) -> bool:
    """Show how far the two lie apart; whether logits and tokens are the same.

    Without a `prompt` the ids are of no text, and there is nothing to compare them with.
    """
    from engine.check.comparing import differences
    from engine.check.soundness import Finding

    rows = differences(traced, reference.trace(ids))
    _show_differences(console, reference.name, rows, tolerance)
    findings = [_same_tokens(written, reference.generate(ids, len(written)))]
    if prompt is not None and (known := reference.encode(prompt)) is not None:
        text = f"{len(ids)} are equal" if known == ids else f"{ids} here and {known} there"
        findings.append(Finding("prompt's ids", "ok" if known == ids else "failed", text))
    _show_findings(console, findings)
    right = rows[-1].within(tolerance)
    far = next((row.name for row in rows if not row.within(tolerance)), None)
    if far is not None:
        console.print(
            f"[{'yellow' if right else 'red'}]more than {tolerance:g} of the deviation apart, "
            f"first in:[/] {far}",
            highlight=False,
        )
    return right and all(finding.verdict == "ok" for finding in findings)


def _same_tokens(written: list[int], theirs: list[int]) -> "Finding":
    from engine.check.comparing import first_parting
    from engine.check.soundness import Finding

    parting = first_parting(written, theirs)
    if parting is None:
        return Finding("greedy tokens", "ok", f"all {len(written)} are equal")
    text = f"equal until token {parting}, then {written[parting]} instead of {theirs[parting]}"
    return Finding("greedy tokens", "failed", text)


def _show_findings(console: Console, findings: "Iterable[Finding]") -> None:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(finding.name, _MARKS[finding.verdict], escape(finding.text))
    console.print(table)


def _show_differences(
    console: Console, name: str, rows: "list[Difference]", tolerance: float
) -> None:
    console.print(f"\n[bold]beside {escape(name)}[/]", highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("layer", no_wrap=True)
    table.add_column("max |d|", justify="right")
    table.add_column("relative", justify="right")
    for row in rows:
        style = "green" if row.within(tolerance) else "red"
        table.add_row(row.name, f"{row.largest:.2e}", f"[{style}]{row.relative:.2e}[/]")
    console.print(table)
