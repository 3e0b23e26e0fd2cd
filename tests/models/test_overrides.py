"""Overrides of config.json: they go before it, and none is without effect."""

from typing import Any

import pytest

from models.errors import CheckpointError, UnsupportedError
from models.loading import load
from models.overrides import overridden
from models.registry import find_architecture
from models.sharding import make_mesh
from tests.parity.cases import CASES

RAW = CASES["qwen2"].config


def read(raw: Any) -> object:
    return find_architecture(raw).config(raw)


def test_overrides_go_before_the_file() -> None:
    changed = overridden(
        RAW, {"architectures": ["LlamaForCausalLM"], "rope_scaling": None, "head_dim": 8}, read
    )
    assert changed["architectures"] == ["LlamaForCausalLM"] and changed["head_dim"] == 8
    assert changed["vocab_size"] == RAW["vocab_size"]
    assert overridden(RAW, None, read) == dict(RAW)


@pytest.mark.parametrize("key", ["rope_thetta", "torch_dtype"])
def test_what_the_model_does_not_read_is_an_error(key: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"sets '{key}', which Qwen2ForCausalLM does not"):
        overridden({**RAW, "torch_dtype": "float32", "rope_theta": 1e4}, {key: 1}, read)


def test_a_likely_name_is_suggested() -> None:
    with pytest.raises(UnsupportedError, match=r"did you mean 'rms_norm_eps'\?"):
        overridden(RAW, {"rms_norm_epsilon": 1e-5}, read)


def test_a_wrong_value_is_what_the_file_would_have_got() -> None:
    with pytest.raises(CheckpointError, match="vocab_size is 'many'; it must be a whole number"):
        read(overridden(RAW, {"vocab_size": "many"}, read))


def test_an_unknown_architecture_is_loaded_as_a_known_one(tmp_path: Any) -> None:
    import json

    (tmp_path / "config.json").write_text(json.dumps({**RAW, "architectures": ["NewForCausalLM"]}))
    with pytest.raises(UnsupportedError, match="NewForCausalLM is not supported"):
        load(tmp_path, make_mesh(1), load_format="dummy")
    model = load(
        tmp_path, make_mesh(1), load_format="dummy",
        hf_overrides={"architectures": RAW["architectures"]},
    )  # fmt: skip
    assert model.config.architecture == "Qwen2ForCausalLM"
