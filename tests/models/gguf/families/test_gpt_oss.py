"""gpt-oss out of a GGUF file: MXFP4 experts in turns, and where its texts end."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import CheckpointError
from models.gguf.configuration import eos_token_ids
from models.gguf.container.reader import GGUFFile
from models.gguf.families.gpt_oss import gathered
from tests.models.gguf.files import gguf, write_gguf

KIND = gguf.GGMLQuantizationType.MXFP4


def test_gate_and_up_are_in_turns_for_all_experts_and_for_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gate, up = (rng.standard_normal((3, 6, 32)).astype(np.float32) for _ in range(2))
    names = ("blk.1.ffn_gate_exps.weight", "blk.1.ffn_up_exps.weight")
    pairs = dict(zip(names, (gate, up), strict=True))
    write_gguf(tmp_path / "a.gguf", "gpt-oss", {}, pairs, lambda name, array: KIND)
    meant = [gguf.dequantize(gguf.quantize(one, KIND), KIND) for one in (gate, up)]
    expected = np.stack(meant, axis=2).reshape(3, 12, 32).swapaxes(1, 2)  # [E, F, 2, D]
    with GGUFFile(tmp_path / "a.gguf") as file:
        [(name, found)] = gathered(file.tensors).items()
        assert name == "model.layers.1.mlp.experts.gate_up_proj"
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.read(1, 3), expected[1:])
        np.testing.assert_array_equal(found.entry(2).read(5, 9), expected[2, 5:9])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"gate": (3, 6, 32)}, "does not have gate and up of .*gate_up_proj' in one shape"),
        ({"gate": (3, 6, 32), "up": (3, 7, 32)}, "does not have gate and up of"),
        ({"down": (6, 32)}, r"has the shape \[6, 32\], and 3 axes are called for"),
    ],
)
def test_experts_that_do_not_fit_are_refused(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], message: str
) -> None:
    held = {f"blk.0.ffn_{k}_exps.weight": np.zeros(s, np.float32) for k, s in tensors.items()}
    write_gguf(tmp_path / "a.gguf", "gpt-oss", {}, held)
    with GGUFFile(tmp_path / "a.gguf") as file, pytest.raises(CheckpointError, match=message):
        gathered(file.tensors)


@pytest.mark.parametrize(
    ("tokens", "ends"),
    [
        (["<|return|>", "<|end|>", "<|call|>", "<|endoftext|>"], [0, 2, 3]),
        (["a", "<|end|>"], [1]),
    ],
)
def test_a_message_ends_where_the_text_goes_on(tokens: list[str], ends: list[int]) -> None:
    kinds = np.full(len(tokens), 3)
    keys = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds}
    assert eos_token_ids(keys, "a.gguf") == ends
