"""An adapter in PEFT's layout, from its folder to the arrays of one slot.

    adapter_config.json            its rank, its scale, and what else it would change
    adapter_model.safetensors      base_model.model.<matrix>.lora_A.weight [r, in], .lora_B [out, r]
    adapter_model.bin              the same as PyTorch saves it

B is laid as the matrix it belongs to is (`weights/`): the same outputs on the same columns, for
any number of shards, and multiplied by the adapter's scale. Owns the checks of these files. Knows
no device, and no slot by number.
Source: https://huggingface.co/docs/peft
"""

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.checkpoints.checkpoint import read_object
from models.checkpoints.name_patterns import NamePatterns, PatternError
from models.checkpoints.safetensors import SafetensorsFile
from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError
from models.layers.lora import AdaptedModel, Target
from models.quantised.tensors import Readable
from models.torch_file.reader import TorchFile

CONFIG, SAFETENSORS, TORCH = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_READABLE = ("bfloat16", "float16", "float32", "float64")
_NAME = re.compile(
    r"(?:base_model\.model\.)?(?P<matrix>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight"
)
# Options of PEFT that change more than W + scale B A, or another matrix than the one they name
_REFUSED = (
    "use_dora", "modules_to_save", "lora_bias", "layer_replication", "megatron_config",
    "trainable_token_indices", "target_parameters", "use_qalora", "use_bdlora",
    "alora_invocation_tokens", "arrow_config",
)  # fmt: skip
_STARTS = ("gaussian", "eva", "orthogonal")  # of A and B, that leave W as it is
Halves = dict[str, Readable]  # "A" and "B"


@dataclass(frozen=True)
class _Settings:
    """What adapter_config.json says."""

    rank: int
    alpha: float
    ranks: NamePatterns[int]
    alphas: NamePatterns[float]
    by_root: bool  # the scale is alpha / sqrt(r)

    def rank_of(self, matrix: str) -> int:
        return self.ranks.of(matrix, self.rank)

    def scale_of(self, matrix: str) -> float:
        rank, alpha = self.rank_of(matrix), self.alphas.of(matrix, self.alpha)
        return alpha / math.sqrt(rank) if self.by_root else alpha / rank


def read_adapter(folder: Path, adapted: AdaptedModel) -> tuple[np.ndarray, ...]:
    """A [in, W] and B [W, out] of each of the model's targets, as they lie in a slot.

    Raises:
        CheckpointError: a file is missing, malformed, or not of this model.
        UnsupportedError: the adapter changes what Ingot has no place for, or its rank is too large.
    """
    try:
        return _read(folder, adapted)
    except PatternError as error:
        raise CheckpointError(f"{folder / CONFIG} names matrices by {error}.") from None


def _read(folder: Path, adapted: AdaptedModel) -> tuple[np.ndarray, ...]:
    settings, prefix = _settings(folder, adapted.rank), adapted.model.weights.optional_prefix
    laid = [_Laid(target, adapted) for target in adapted.targets]
    places: dict[str, list[tuple[_Laid, int]]] = {}
    for each in laid:
        for part, tensor in enumerate(each.target.tensors):
            name = tensor.removesuffix(".weight").removeprefix(prefix)
            places.setdefault(name, []).append((each, part))
    with _open(folder) as (path, tensors):
        for matrix, halves in _paired(path, tensors).items():
            found = places.get(matrix.removeprefix(prefix))
            if found is None:
                raise UnsupportedError(
                    f"{path} changes {matrix!r}, and adapters have a place beside "
                    f"{', '.join(sorted({name.rpartition('.')[2] for name in places}))} of this "
                    f"model's {adapted.model.config.num_layers} layers; use one that was made for "
                    "these."
                )
            for each, part in found:
                each.add(part, matrix, halves, settings, path)
    return tuple(array for each in laid for array in (each.a, each.b))


class _Laid:
    """What an adapter has of one target, as it lies in a slot."""

    def __init__(self, target: Target, adapted: AdaptedModel) -> None:
        self.target, self._rank = target, adapted.rank
        self._shards = adapted.model.mesh.size
        width, dtype = adapted.rank * len(target.tensors), np.dtype(adapted.model.dtype)
        self.a = np.zeros((target.shape[0], width), dtype)
        self.b = np.zeros((width, target.shape[1]), dtype)

    def add(self, part: int, matrix: str, halves: Halves, settings: _Settings, path: Path) -> None:
        """Lay the A and B of one of its tensors."""
        tensor, rank = self.target.tensors[part], settings.rank_of(matrix)
        outputs = self.target.source.outputs()[tensor]
        for half, shape in {"A": (rank, self.target.shape[0]), "B": (outputs, rank)}.items():
            _check(halves[half], shape, path)
        rows = slice(part * self._rank, part * self._rank + rank)
        self.a[:, rows] = halves["A"].read().T
        b = halves["B"].read().astype(np.float32) * np.float32(settings.scale_of(matrix))
        for piece in self.target.source.pieces(self._shards):
            if piece.tensor == tensor:
                taken = b[piece.start : piece.start + piece.count * piece.step : piece.step]
                self.b[rows, piece.at : piece.at + piece.count] = taken.T
        if not (np.isfinite(self.a[:, rows]).all() and np.isfinite(self.b[rows]).all()):
            raise CheckpointError(  # 0 times such a number would be seen by others in the step
                f"{path} has numbers for {matrix!r} that are infinite or none in "
                f"{self.a.dtype.name}; use one whose training has converged."
            )


def _check(tensor: Readable, expected: tuple[int, ...], path: Path) -> None:
    if tensor.shape != expected:
        raise CheckpointError(
            f"Tensor {tensor.name!r} of {path} has the shape {list(tensor.shape)}, and this model "
            f"and {CONFIG} call for {list(expected)}; use the adapter of this model."
        )
    if tensor.dtype.name not in _READABLE:
        raise UnsupportedError(
            f"Tensor {tensor.name!r} of {path} holds {tensor.dtype.name} and must hold one of "
            f"{', '.join(_READABLE)}."
        )


def _paired(path: Path, tensors: Mapping[str, Readable]) -> dict[str, Halves]:
    """A and B by the matrix that they change."""
    found: dict[str, Halves] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise UnsupportedError(
                f"{path} has tensor {name!r}; adapters are supported that have lora_A.weight and "
                "lora_B.weight of linear maps and nothing else."
            )
        halves = found.setdefault(match["matrix"], {})
        if match["half"] in halves:
            raise CheckpointError(
                f"{path} has lora_{match['half']} of {match['matrix']!r} twice; download it again."
            )
        halves[match["half"]] = tensor
    for matrix, halves in found.items():
        if len(halves) < 2:
            raise CheckpointError(
                f"{path} has lora_{next(iter(halves))} of {matrix!r} without the other half; "
                "download it again."
            )
    if not found:
        raise CheckpointError(f"{path} holds no tensors; download it again.")
    return found


@contextmanager
def _open(folder: Path) -> Iterator[tuple[Path, Mapping[str, Readable]]]:
    """The file with the weights, and its tensors, readable inside the `with`."""
    kinds: dict[str, type[SafetensorsFile] | type[TorchFile]] = {
        SAFETENSORS: SafetensorsFile, TORCH: TorchFile,
    }  # fmt: skip
    for name, kind in kinds.items():
        path = folder / name
        if path.is_file():
            with kind(path) as file:
                yield path, file.tensors
            return
    raise CheckpointError(f"{folder} has neither {SAFETENSORS} nor {TORCH}; download it again.")


def _settings(folder: Path, most: int) -> _Settings:
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {CONFIG}; give the folder of an adapter that PEFT has saved."
        )
    fields = Fields(read_object(path), str(path))
    fields.option("peft_type", ("LORA",), "LORA")
    fields.option("bias", ("none",), "none")
    fields.refuse(*_REFUSED)
    if isinstance(fields.raw.get("init_lora_weights"), str):
        fields.option("init_lora_weights", _STARTS)
    ranks, alphas = fields.section("rank_pattern"), fields.section("alpha_pattern")
    by_pattern = {pattern: ranks.integer(pattern) for pattern in ranks.raw}
    found = _Settings(
        rank=fields.integer("r"),
        alpha=fields.number("lora_alpha", 8.0),
        ranks=NamePatterns(by_pattern),
        alphas=NamePatterns({pattern: alphas.number(pattern) for pattern in alphas.raw}),
        by_root=fields.flag("use_rslora", False),
    )
    largest = max([found.rank, *by_pattern.values()])
    if largest > most:
        raise UnsupportedError(
            f"{path} has rank {largest} and --max-lora-rank is {most}; start with "
            f"--max-lora-rank {largest}."
        )
    return found
