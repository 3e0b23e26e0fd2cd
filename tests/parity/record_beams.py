"""Runs the beam searches through transformers: `python -m tests.parity.record_beams`.

Writes `beams.json`. Needs PyTorch and transformers, as `record` does.
"""

import functools
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers

from tests.parity.beams import CASES, BeamCase, Found, write
from tests.parity.cases import CASES as MODELS
from tests.parity.goldens import read as read_golden
from tests.parity.record import build


@functools.cache
def model_of(name: str) -> transformers.PreTrainedModel:
    """transformers' model of a case, in float32."""
    with TemporaryDirectory() as folder:
        return build(MODELS[name], Path(folder))[0]


@torch.no_grad()
def search(case: BeamCase) -> Found:
    """What `generate` finds; all prompts in one call, so they are of one length."""
    tokens = read_golden(case.model).tokens
    prompts = torch.tensor([tokens[start:end] for start, end in case.prompts])
    output = model_of(case.model).generate(
        prompts, attention_mask=torch.ones_like(prompts), do_sample=False,
        num_beams=case.beam_width, num_return_sequences=case.beam_width,
        max_new_tokens=case.max_tokens, length_penalty=case.length_penalty,
        early_stopping=case.early_stopping, eos_token_id=list(case.eos) or None, pad_token_id=0,
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    rows = [_until_end(row, case.eos) for row in output.sequences[:, prompts.shape[1] :].tolist()]
    if case.beam_width == 1:  # greedy, which transformers does not score
        steps = model_of(case.model).compute_transition_scores(
            output.sequences, output.scores, normalize_logits=True
        )
        scores = [float(s[: len(row)].mean()) for s, row in zip(steps, rows, strict=True)]
    else:
        scores = output.sequences_scores.tolist()
    parts = [slice(i, i + case.beam_width) for i in range(0, len(rows), case.beam_width)]
    return Found([rows[part] for part in parts], [scores[part] for part in parts])


def _until_end(ids: list[int], eos: tuple[int, ...]) -> list[int]:
    """Without padding: an end of text is the last id."""
    return ids[: next((at for at, token in enumerate(ids, 1) if token in eos), len(ids))]


def main() -> int:
    """Record all; returns the exit status."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    found = {name: search(case) for name, case in CASES.items()}
    write(found)
    for name, each in found.items():
        lengths = sorted({len(ids) for prompt in each.sequences for ids in prompt})
        print(f"{name}: lengths {lengths}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
