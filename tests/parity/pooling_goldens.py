"""The golden files of pooling models: what transformers answered, sequence by sequence.

pooling_goldens/<case>.npz   config    the configuration, as JSON
                             tensors   names and shapes of the checkpoint, as JSON
                             vectors   float64 [sequences, W]   pooled states, or raw scores
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "pooling_goldens"


@dataclass(frozen=True)
class PoolingGolden:
    """One recorded answer."""

    config: dict[str, Any]
    tensors: list[tuple[str, tuple[int, ...]]]
    vectors: np.ndarray


def write(name: str, golden: PoolingGolden) -> None:
    """Write the golden file of the case `name`."""
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        config=np.array(json.dumps(golden.config, sort_keys=True)),
        tensors=np.array(json.dumps(golden.tensors)),
        vectors=golden.vectors,
    )


def read(name: str) -> PoolingGolden:
    """The golden file of the case `name`."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        tensors = json.loads(str(file["tensors"]))
        return PoolingGolden(
            config=json.loads(str(file["config"])),
            tensors=[(tensor, tuple(shape)) for tensor, shape in tensors],
            vectors=file["vectors"],
        )
