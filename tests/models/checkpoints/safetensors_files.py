"""Writes safetensors files for tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
         "int8": "I8", "uint8": "U8", "int32": "I32", "int64": "I64", "float64": "F64"}  # fmt: skip


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write `tensors` in their order, without padding."""
    header, end = {}, 0
    for name, array in tensors.items():
        offsets = [end, end := end + array.nbytes]
        dtype = NAMES[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


def write_checkpoint(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Write config.json and the tensors, in two files with an index."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    half = len(tensors) // 2
    names = list(tensors)
    files = {"model-1.safetensors": names[:half], "model-2.safetensors": names[half:]}
    for filename, held in files.items():
        write_safetensors(folder / filename, {name: tensors[name] for name in held})
    weight_map = {name: filename for filename, held in files.items() for name in held}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
