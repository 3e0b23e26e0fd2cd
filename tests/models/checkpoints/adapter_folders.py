"""Writes adapters as PEFT saves them, and what becomes of matrices into which they are merged."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.checkpoints.safetensors_files import write_safetensors

PREFIX = "base_model.model."
Tensors = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


def halves(shapes: Shapes, rank: int, seed: int) -> dict[str, np.ndarray]:
    """A and B of every matrix of the layers, as large as the matrices are."""
    rng, found = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        if ".layers." not in name or len(shape) != 2:
            continue
        outputs, inputs = shape
        module = PREFIX + name.removesuffix(".weight")
        a = rng.normal(size=(rank, inputs)) / math.sqrt(inputs)
        b = rng.normal(size=(outputs, rank)) / math.sqrt(rank)
        found[f"{module}.lora_A.weight"] = a.astype(np.float32)
        found[f"{module}.lora_B.weight"] = b.astype(np.float32)
    return found


def write_adapter(folder: Path, tensors: Tensors, rank: int, **settings: Any) -> Path:
    """The folder, which is new."""
    folder.mkdir()
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none", **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def merged(weights: Tensors, adapter: Tensors, scale: float) -> dict[str, np.ndarray]:
    """The weights with W + scale B A in the place of W."""
    found = dict(weights)
    for name in weights:
        module = PREFIX + name.removesuffix(".weight")
        if (a := adapter.get(f"{module}.lora_A.weight")) is not None:
            b = adapter[f"{module}.lora_B.weight"]
            found[name] = (weights[name] + scale * (b.astype(np.float64) @ a)).astype(np.float32)
    return found
