"""Runs the cases through transformers: `python -m tests.parity.record_encdec [--check] [case ...]`.

Without --check the golden files are written, with it they are compared. Needs PyTorch and
transformers.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.parity.case import DECODE_STEPS, Case
from tests.parity.encdec_cases import CASES, FOLDER, encoder_prompt, spectrogram
from tests.parity.goldens import Golden, read, recorded, write
from tests.parity.record import MIN_MARGIN, Tensors, difference, smallest_margin
from tests.parity.weights import tensor


def build(case: Case, folder: Path) -> tuple[transformers.PreTrainedModel, Tensors]:
    """transformers' model of the case, in float32, with the case's weights; and their names."""
    raw = json.loads(json.dumps(case.config))
    config = transformers.AutoConfig.for_model(raw.pop("model_type"), **raw)
    kind = transformers.AutoModelForSeq2SeqLM
    if "num_mel_bins" in raw:
        kind = transformers.AutoModelForSpeechSeq2Seq
    model = kind.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    with safe_open(file, "numpy") as written:
        shapes = {name: tuple(written.get_slice(name).get_shape()) for name in written.keys()}  # noqa: SIM118
    untied = case.config.get("tie_word_embeddings") is False
    if untied:  # as checkpoints of T5 1.1 and FLAN have it
        shapes["lm_head.weight"] = shapes["shared.weight"]
    drawn = {n: tensor(case.seed, n, s, case.spread) for n, s in shapes.items()}
    save_file(drawn, file)
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if untied:
        head = torch.from_numpy(drawn["lm_head.weight"])
        model.lm_head.weight = torch.nn.Parameter(head, requires_grad=False)
    return model.eval(), sorted(shapes.items())


@torch.no_grad()
def answer(case: Case) -> Golden:
    """What transformers answers: the decoder's prompt, then greedy choices, one a step."""
    with TemporaryDirectory() as folder:
        model, tensors = build(case, Path(folder))
    if "num_mel_bins" in case.config:
        read_by_encoder = torch.from_numpy(spectrogram(case).T[None])
    else:
        read_by_encoder = torch.tensor([encoder_prompt(case)])
    encoded = model.get_encoder()(read_by_encoder)
    tokens, fed, cache, logits = case.prompt(), case.prompt(), None, []
    for _ in range(DECODE_STEPS + 1):
        output = model(
            encoder_outputs=encoded,
            decoder_input_ids=torch.tensor([fed]),
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        logits.append(output.logits[0].double().numpy())
        fed = [int(logits[-1][-1].argmax())]
        tokens = tokens + fed
    return Golden(
        config=json.loads(json.dumps(case.config)),
        tensors=tensors,
        tokens=tokens[:-1],
        logits=np.concatenate(logits),
    )


def main() -> int:
    """Record or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="case")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    failed = 0
    for name in arguments.cases:
        golden, problem = answer(CASES[name]), None
        if (margin := smallest_margin(golden)) < MIN_MARGIN:
            problem = f"a greedy choice leads by {margin:.1e} of the scale; choose another seed"
        elif arguments.check:
            known = name in recorded(FOLDER)
            problem = difference(read(name, FOLDER), golden) if known else "has no golden file"
        else:
            write(name, golden, FOLDER)
        failed += problem is not None
        distinct = len(set(golden.tokens[-DECODE_STEPS:]))
        print(f"{name}: {problem or f'ok, margin {margin:.1e}, {distinct} distinct tokens'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
