"""What holds for the config.json of every family, and when a module is laid out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models import pooling_loading
from models.checkpoints.loading import load
from models.errors import CheckpointError, ModelError, UnsupportedError
from models.pooling_loading import load_pooler
from models.sharding import make_mesh
from tests.engine.pooling_folders import write_folder, write_modules
from tests.parity.cases import CASES
from tests.parity.encdec_cases import CASES as ENCODED
from tests.parity.pooling_cases import CASES as POOLED

UNKNOWN = {"rope_type": "spiral", "rope_theta": 10_000.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "rope_scaling": {"rope_scaling": UNKNOWN},
    "rope_parameters": {"rope_scaling": None, "rope_parameters": UNKNOWN},
    "by layer": {"rope_scaling": None, "rope_parameters": {"sliding_attention": UNKNOWN}},
}
LOADS: dict[str, tuple[Any, Any]] = {
    name: (case.config, load_pooler if cases is POOLED else load)
    for cases in (CASES, ENCODED, POOLED)
    for name, case in cases.items()
}


def said(folder: Path, config: Any, read: Callable[..., Any]) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError) as error:
        read(folder, make_mesh(1))
    return str(error.value).replace(str(folder), "M")


@pytest.mark.parametrize("where", SETTINGS)
def test_no_family_takes_an_unknown_type_of_rotation(where: str, tmp_path: Path) -> None:
    for name, (config, read) in LOADS.items():
        assert said(tmp_path, config, read).startswith("M has neither model.safetensors"), name
        changed = {**config, **SETTINGS[where]}
        if "text_config" in config:
            changed = {**config, "text_config": {**config["text_config"], **SETTINGS[where]}}
        message = said(tmp_path, changed, read)
        assert message.startswith("M/config.json: "), (name, message)
        assert "is 'spiral', which is not supported; use default, " in message, (name, message)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_rotation_is_no_override_where_nothing_rotates(name: str, tmp_path: Path) -> None:
    config, read = LOADS[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    change = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    with pytest.raises(UnsupportedError, match=r"sets .rope_scaling., which .* does not read"):
        read(tmp_path, make_mesh(1), hf_overrides=change)


def test_an_encoder_is_laid_out_once_its_tensors_have_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, "bert", num_hidden_layers=1000)
    monkeypatch.setattr(pooling_loading, "layout", None)  # 1,000 layers take a minute
    with pytest.raises(CheckpointError, match="num_hidden_layers is 1000"):
        load_pooler(tmp_path, make_mesh(1))


@pytest.mark.parametrize(("limit", "tokens"), [(24, 24), (10**31, 128), (4096, 128)])
def test_texts_are_as_long_as_the_tokenizer_says(limit: int, tokens: int, tmp_path: Path) -> None:
    write_folder(tmp_path, "bert", max_position_embeddings=128)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({"model_max_length": limit}))
    load_it = {"mesh": make_mesh(1), "load_format": "dummy"}
    assert load_pooler(tmp_path, **load_it).config.context_length == tokens
    assert load_pooler(tmp_path, **load_it, max_model_len=64).config.context_length == 64
    write_modules(tmp_path, {"pooling_mode_cls_token": True}, max_seq_length=32)
    assert load_pooler(tmp_path, **load_it).config.context_length == 32


def test_a_longest_text_that_is_no_number_is_named_with_its_file(tmp_path: Path) -> None:
    write_folder(tmp_path, "bert")
    path = tmp_path / "tokenizer_config.json"
    path.write_text('{"model_max_length": "x"}')
    with pytest.raises(CheckpointError) as error:
        load_pooler(tmp_path, make_mesh(1), load_format="dummy")
    assert str(error.value).startswith(f"{path}: model_max_length is 'x'; it must be a number")
