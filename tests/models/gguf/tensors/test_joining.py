"""Tensors that are several in the file, of which blocks are read by the rows that are asked for."""

from pathlib import Path

import numpy as np

from models.config.fields import Fields
from models.gguf.container.reader import GGUFFile
from models.gguf.tensors.joining import concatenated, keys_and_values
from models.gguf.tensors.undoing import EachTurned, HalfOfEach, Reshaped
from tests.models.gguf.files import gguf, write_gguf

KIND = gguf.GGMLQuantizationType.Q8_0
SHAPES = {"keys": (2, 32, 64), "values": (2, 8, 32), "gate": (3, 6, 32), "up": (3, 6, 32)}


def test_blocks_of_several_tensors_are_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    write_gguf(tmp_path / "a.gguf", "deepseek2", {}, drawn, lambda name, array: KIND)
    keys, values, gate, up = (
        gguf.dequantize(gguf.quantize(one, KIND), KIND) for one in drawn.values()
    )
    heads = np.concatenate([keys.swapaxes(1, 2), values], axis=1).reshape(-1, 32)
    both = np.concatenate([gate, up], axis=1)
    fields = Fields({}, "a.gguf")
    with GGUFFile(tmp_path / "a.gguf") as file:
        k, v, g, u = (file.tensors[name] for name in SHAPES)
        made = keys_and_values("kv_b", (k, v), fields)
        np.testing.assert_array_equal(made.read(60, 75), heads[60:75])
        one = concatenated("gate_up", (g, u), fields)
        np.testing.assert_array_equal(one.read(1, 3), both[1:3])
        np.testing.assert_array_equal(one.entry(2).read(4, 9), both[2, 4:9])
        np.testing.assert_array_equal(EachTurned(one).entry(1).read(3, 7), both[1].T[3:7])
        np.testing.assert_array_equal(HalfOfEach(one, True).entry(1).read(2, 5), up[1, 2:5])
        flat = Reshaped(one, (36, 32))
        np.testing.assert_array_equal(flat.read(11, 26), both.reshape(36, 32)[11:26])
