"""Runs the pooling cases through transformers: `python -m tests.parity.record_pooling [--check]`.

Each sequence alone, so no padding enters the reference. With --check the golden files are compared
with a fresh run. Needs PyTorch and transformers.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.parity import record
from tests.parity.case import Case
from tests.parity.pooling_cases import CASES, PoolingCase
from tests.parity.pooling_goldens import PoolingGolden, read, write
from tests.parity.weights import tensor

TOLERANCE = 3e-6  # of a vector's length, between transformers on two processors


def build(case: PoolingCase, folder: Path) -> tuple[Any, list[tuple[str, tuple[int, ...]]]]:
    """transformers' model with the case's weights, and the names in its checkpoint."""
    kind = (
        transformers.AutoModelForSequenceClassification
        if case.classifies
        else transformers.AutoModel
    )
    name = case.config["architectures"][0]
    if name.endswith("EncoderModel"):  # which to the others is a whole T5
        kind = getattr(transformers, name)
    fields = {k: v for k, v in json.loads(json.dumps(case.config)).items() if k != "model_type"}
    if "id2label" in fields:
        fields["id2label"] = {int(number): name for number, name in fields["id2label"].items()}
    config = transformers.AutoConfig.for_model(case.config["model_type"], **fields)
    made = kind.from_config if hasattr(kind, "from_config") else kind._from_config
    made(config, dtype=torch.float32).save_pretrained(folder)
    file = folder / "model.safetensors"
    with safe_open(file, "numpy") as written:
        shapes = {name: tuple(written.get_slice(name).get_shape()) for name in written.keys()}  # noqa: SIM118
    save_file({n: tensor(case.seed, n, s, case.spread) for n, s in shapes.items()}, file)
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.double().eval(), sorted(shapes.items())


@torch.no_grad()
def answer(case: PoolingCase) -> PoolingGolden:
    """What transformers answers, with the float32 weights in float64."""
    if case.body is not None:
        return rewards(case)
    with TemporaryDirectory() as folder:
        model, tensors = build(case, Path(folder))
    vectors = []
    for ids, types in zip(case.inputs(), case.types(), strict=True):
        more = {"token_type_ids": torch.tensor([types])} if types else {}
        output = model(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long(), **more)
        vectors.append(output.logits[0] if case.classifies else _pool(output, case.pooling))
    stacked = torch.stack(vectors).double().numpy()
    return PoolingGolden(json.loads(json.dumps(case.config)), tensors, stacked)


def _pool(output: Any, pooling: str) -> torch.Tensor:
    hidden = output.last_hidden_state[0]
    return {"CLS": hidden[0], "LAST": hidden[-1], "MEAN": hidden.mean(0)}[pooling]


def rewards(case: PoolingCase) -> PoolingGolden:
    """What the heads of reward models make of transformers' states, as their authors wrote them."""
    causal = Case(case.config, seed=case.seed, spread=case.spread, stand_in=case.body)
    with TemporaryDirectory() as folder:
        model, tensors = record.build(causal, Path(folder))
    width, name = model.config.hidden_size, case.config["architectures"][0]
    labels = 2 if name == "Qwen2ForProcessRewardModel" else 1
    shapes = {
        "score.0.weight": (width, width), "score.0.bias": (width,),
        "score.2.weight": (labels, width), "score.2.bias": (labels,),
    }  # fmt: skip
    shapes = {"v_head.weight": (1, width)} if name.startswith("InternLM2") else shapes
    head = {
        n: torch.tensor(tensor(case.seed, n, s, case.spread)).double() for n, s in shapes.items()
    }
    found = []
    for ids in case.inputs():
        hidden = model.double().model(torch.tensor([ids])).last_hidden_state[0]
        if "v_head.weight" in head:
            scores = hidden @ head["v_head.weight"].T
        else:
            inner = torch.relu(hidden @ head["score.0.weight"].T + head["score.0.bias"])
            scores = inner @ head["score.2.weight"].T + head["score.2.bias"]
        kept = [t for t, one in enumerate(ids) if case.step_tag_id in (None, one)]
        found.append(scores[kept])
    every = sorted([*tensors, *shapes.items()])
    return PoolingGolden(json.loads(json.dumps(case.config)), every, torch.cat(found).numpy())


def difference(old: PoolingGolden, new: PoolingGolden) -> str | None:
    """What differs between two answers, or None."""
    if (old.config, sorted(old.tensors)) != (new.config, sorted(new.tensors)):
        return "the configuration or the tensors differ"
    distance = np.linalg.norm(old.vectors - new.vectors) / np.linalg.norm(new.vectors)
    return f"vectors differ by {distance:.1e}" if distance > TOLERANCE else None


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
        if arguments.check:
            problem = difference(read(name), golden)
        else:
            write(name, golden)
        failed += problem is not None
        print(f"{name}: {problem or 'ok'}, deviation {golden.vectors.std():.2f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
