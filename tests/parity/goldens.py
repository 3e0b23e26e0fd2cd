"""The golden files: what transformers answered for one case, small enough for the repository.

    goldens/<case>.npz   config    the configuration the answer belongs to, as JSON
                         tensors   [["model.embed_tokens.weight", [67, 40]], ...] as JSON
                         tokens    int16 [prompt + 64]          prompt, then the greedy choices
                         scale     float64                      deviation of all logits
                         logits    int32 [prompt + 64, V]       in millionths of the scale

Owns the format. Row t of `logits` answers the tokens 0..t; the first rows are the prefill's, the
others those of one decode step each.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "goldens"
UNIT = 1e-6


@dataclass(frozen=True)
class Golden:
    """One recorded answer."""

    config: dict
    tensors: list[tuple[str, tuple[int, ...]]]
    tokens: list[int]  # prompt, then 64 greedy choices, of which the last is not fed back
    logits: np.ndarray  # float64 [len(tokens), V]; row t answers tokens[: t + 1]

    @property
    def scale(self) -> float:
        """The logits' deviation, against which differences are measured."""
        return float(self.logits.std())


def recorded(folder: Path = FOLDER) -> set[str]:
    """Names of the cases that have a golden file."""
    return {path.stem for path in folder.glob("*.npz")}


def write(name: str, golden: Golden, folder: Path = FOLDER) -> None:
    """Write the golden file of the case `name`."""
    folder.mkdir(exist_ok=True)
    np.savez_compressed(
        folder / f"{name}.npz",
        config=np.array(json.dumps(golden.config, sort_keys=True)),
        tensors=np.array(json.dumps(golden.tensors)),
        tokens=np.array(golden.tokens, np.int16),
        scale=np.array(golden.scale),
        logits=np.rint(golden.logits / (golden.scale * UNIT)).astype(np.int32),
    )


def read(name: str, folder: Path = FOLDER) -> Golden:
    """The golden file of the case `name`."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        tensors = json.loads(str(file["tensors"]))
        return Golden(
            config=json.loads(str(file["config"])),
            tensors=[(tensor, tuple(shape)) for tensor, shape in tensors],
            tokens=file["tokens"].tolist(),
            logits=file["logits"] * (float(file["scale"]) * UNIT),
        )
