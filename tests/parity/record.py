"""Runs the cases through transformers: `python -m tests.parity.record [--check] [case ...]`.

Without --check the golden files are written. With it they are compared with a fresh run, and the
exit status is 1 if one differs. Needs PyTorch and transformers; nothing else in the project does.
"""

import argparse
import inspect
import json
import math
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.parity import alterations
from tests.parity.case import DECODE_STEPS, Case
from tests.parity.cases import CASES
from tests.parity.goldens import Golden, read, recorded, write
from tests.parity.weights import tensor

MIN_MARGIN = 1e-3  # of the logits' scale, between the best and the second best token
TOLERANCE = 1e-4  # of the scale, between transformers on two processors: 3.6e-5 was seen

Tensors = list[tuple[str, tuple[int, ...]]]  # names and shapes, of a checkpoint


def build(case: Case, folder: Path) -> tuple[transformers.PreTrainedModel, Tensors]:
    """transformers' model of the case, in float32, with the case's weights; and their names.

    The names are those of a checkpoint, which are not always the model's own: written and read
    back by transformers.
    """
    raw = case.config if case.stand_in is None else case.stand_in.config
    fields = {k: v for k, v in json.loads(json.dumps(raw)).items() if k != "model_type"}
    config = transformers.AutoConfig.for_model(raw["model_type"], **fields)
    kind: Any = transformers.AutoModelForCausalLM
    if "vision_config" in raw:
        kind = transformers.AutoModelForImageTextToText
    model = kind.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    file = folder / "model.safetensors"
    with safe_open(file, "numpy") as written:
        shapes = {name: tuple(written.get_slice(name).get_shape()) for name in written.keys()}  # noqa: SIM118
    own, drawn = draw(case, shapes)
    save_file(own, file)
    model = kind.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=case.attention,
        experts_implementation="eager",
    )
    for name in case.stand_in.alterations if case.stand_in is not None else ():
        getattr(alterations, name)(model)
    return model.eval(), sorted(drawn.items())


def draw(
    case: Case, shapes: dict[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """transformers' tensors, and names and shapes of the checkpoint's, which are those drawn.

    They are the same but for a stand-in: its tensors are numbered, packed, and then found again.
    """
    if case.stand_in is None:
        return {n: tensor(case.seed, n, s, case.spread) for n, s in shapes.items()}, shapes
    sizes = [math.prod(shape) for shape in shapes.values()]
    starts = np.cumsum([0, *sizes])
    places = {
        name: np.arange(start, start + size).reshape(shape)
        for (name, shape), start, size in zip(shapes.items(), starts, sizes, strict=False)
    }
    numbers = np.full(starts[-1], np.nan, np.float32)
    zeros = {name for name in places if any(part in name for part in case.stand_in.zeros)}
    for name in zeros:
        numbers[places[name]] = 0
    packed = case.stand_in.packed({n: place for n, place in places.items() if n not in zeros})
    for name, where in packed.items():
        numbers[where] = tensor(case.seed, name, where.shape, case.spread)
    return (
        {name: numbers[where] for name, where in places.items()},
        {name: where.shape for name, where in packed.items()},
    )


def answer(case: Case) -> Golden:
    """What transformers answers."""
    with TemporaryDirectory() as folder:
        model, tensors = build(case, Path(folder))
        return run(case, model, tensors)


@torch.no_grad()
def run(case: Case, model: transformers.PreTrainedModel, tensors: Tensors) -> Golden:
    """Prefill the prompt, then decode greedily, one token a step.

    Dynamic scaling keeps the frequencies of the longest sequence it has seen: where a case names
    its context, transformers is shown a sequence of that length first.
    """
    if case.context is not None:
        model(torch.zeros((1, case.context), dtype=torch.int64))
    tokens = case.prompt()
    cache = transformers.DynamicCache(config=model.config)
    fed, logits = tokens, []
    own = "cache_params" in inspect.signature(model.forward).parameters
    kept: dict[str, Any] = {"cache_params" if own else "past_key_values": cache}
    for _ in range(DECODE_STEPS + 1):
        if case.positions:
            kept["position_ids"] = torch.arange(len(tokens) - len(fed), len(tokens))[None]
        if case.whole:
            output = model(torch.tensor([tokens]), use_cache=False)
        else:
            output = model(torch.tensor([fed]), use_cache=True, **kept)
        logits.append(output.logits[0, -len(fed) :].double().numpy())
        fed = [int(logits[-1][-1].argmax())]
        tokens = tokens + fed
    return Golden(
        config=json.loads(json.dumps(case.config)),
        tensors=tensors,
        tokens=tokens[:-1],
        logits=np.concatenate(logits),
    )


def smallest_margin(golden: Golden) -> float:
    """Of the scale: the smallest lead of a greedy choice over the second best token."""
    best = np.sort(golden.logits[-DECODE_STEPS - 1 :], axis=-1)
    return float((best[:, -1] - best[:, -2]).min() / golden.scale)


def difference(old: Golden, new: Golden) -> str | None:
    """What differs between two answers, or None."""
    if sorted(old.tensors) != sorted(new.tensors):
        return "tensors differ"
    for field in ("config", "tokens"):
        if getattr(old, field) != getattr(new, field):
            return f"{field} differ"
    if (distance := np.abs(old.logits - new.logits).max() / new.scale) > TOLERANCE:
        return f"logits differ by {distance:.1e} of their scale"
    return None


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
        golden = answer(CASES[name])
        problem = None
        if (margin := smallest_margin(golden)) < MIN_MARGIN:
            problem = f"a greedy choice leads by {margin:.1e} of the scale; choose another seed"
        elif arguments.check:
            problem = difference(read(name), golden) if name in recorded() else "has no golden file"
        else:
            write(name, golden)
        failed += problem is not None
        distinct = len(set(golden.tokens[-DECODE_STEPS:]))
        print(f"{name}: {problem or f'ok, margin {margin:.1e}, {distinct} distinct tokens'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
