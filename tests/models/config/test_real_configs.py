"""Every published config.json at hand: accepted whole, or refused with a sentence that helps."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from models.config.decoder import ModelConfig
from models.config.encoder import EncoderConfig
from models.errors import CheckpointError
from models.quantised.methods import quantisation_method
from models.registry import find_architecture, find_encoder

NAMELESS = {"llama3-8B-instruct": "LlamaForCausalLM", "mamba2-780m_partial": "Mamba2ForCausalLM"}
QUANTISED = {"DeepSeek-R1": "fp8", "Kimi-K2": "fp8"}
SHAPES = {  # layers and head size of some, from their authors' model cards
    "DeepSeek-R1": (61, 576), "Nemotron-3-Nano-30B-A3B": (52, 128), "gpt-oss-20b": (24, 64),
    "Qwen2.5-VL-3B-Instruct": (36, 128), "llava-1.5-7b-hf": (32, 128), "mamba-2.8b-hf": (64, 64),
}  # fmt: skip


def read(raw: Mapping[str, Any], where: str) -> ModelConfig | EncoderConfig:
    encoder = find_encoder(raw) if "architectures" in raw else None
    return (encoder or find_architecture(raw, where)).config(raw)


def test_each_is_accepted_or_told_what_it_lacks(shared_data: Path) -> None:
    paths = sorted((shared_data / "configs").glob("*.json"))
    assert len(paths) >= 30
    for path in paths:
        raw = json.loads(path.read_text())
        if path.stem in NAMELESS:
            with pytest.raises(CheckpointError, match="has no architectures") as error:
                read(raw, str(path))
            assert str(error.value).startswith(str(path))
            (proposed,) = re.findall(r"--hf-overrides '(.*)'", str(error.value))
            raw |= json.loads(proposed)
            assert raw["architectures"] == [NAMELESS[path.stem]]
        config = read(raw, str(path))
        if path.stem in SHAPES:
            assert isinstance(config, ModelConfig)
            assert (config.num_layers, config.head_dim) == SHAPES[path.stem]
        if "num_hidden_layers" in raw and isinstance(config, ModelConfig):
            assert config.num_layers == raw["num_hidden_layers"], path.stem
        method = quantisation_method(raw)
        assert (method.name if method else None) == QUANTISED.get(path.stem)
