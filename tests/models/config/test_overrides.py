"""Overrides of config.json: they go before it, and none is without effect."""

import json
from typing import Any

import pytest

from models.checkpoints.loading import load
from models.config.overrides import merged, overridden
from models.errors import CheckpointError, UnsupportedError
from models.pooling_loading import load_pooler
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


def test_of_a_configuration_within_one_only_what_is_named_changes() -> None:
    raw = {
        **RAW, "rope_scaling": {"rope_type": "linear", "factor": 2},
        "text_config": {"hidden_size": 8, "rope_scaling": {"rope_type": "yarn"}},
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"},
    }  # fmt: skip
    change = {
        "rope_scaling": {"rope_type": "llama3"}, "quantization_config": {"quant_method": "awq"},
        "text_config": {"rope_scaling": {"factor": 4}, "hidden_size": 16}, "new_config": {"a": 1},
    }  # fmt: skip
    assert merged(raw, change) == {
        **raw, **change, "text_config": {"rope_scaling": {"factor": 4}, "hidden_size": 16},
    }  # fmt: skip
    assert merged(raw, {"text_config": {"x": 1}})["text_config"] == {**raw["text_config"], "x": 1}


def test_what_a_text_config_does_not_read_is_an_error() -> None:
    raw = CASES["gemma3_images"].config
    layers = raw["text_config"]["num_hidden_layers"]
    changed = overridden(raw, {"text_config": {"num_hidden_layers": layers + 1}}, read)
    assert changed["text_config"] == {**raw["text_config"], "num_hidden_layers": layers + 1}
    with pytest.raises(UnsupportedError, match=r"'text_config\.rms_norm_epps', .*'rms_norm_eps'\?"):
        overridden(raw, {"text_config": {"rms_norm_epps": 1}}, read)


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


@pytest.mark.parametrize(
    "change",
    [
        {"num_labels": 3}, {"id2label": {"0": "joy"}}, {"problem_type": "regression"},
        {"sentence_transformers": {"activation_fn": "Sigmoid"}}, {"label2id": {"joy": 0}},
    ],
)  # fmt: skip
def test_what_only_classifiers_read_is_refused_elsewhere(change: Any, tmp_path: Any) -> None:
    (key,) = change
    (tmp_path / "config.json").write_text(json.dumps(RAW))
    with pytest.raises(UnsupportedError, match=f"sets '{key}', which Qwen2ForCausalLM does not"):
        load(tmp_path, make_mesh(1), load_format="dummy", hf_overrides=change)
    with pytest.raises(UnsupportedError, match=f"sets '{key}', which Qwen2ForCausalLM does not"):
        load_pooler(tmp_path, make_mesh(1), load_format="dummy", hf_overrides=change)
    if key == "label2id":  # nobody reads it
        return
    (tmp_path / "config.json").write_text(
        json.dumps({**RAW, "architectures": ["Qwen2ForSequenceClassification"]})
    )
    spec = load_pooler(tmp_path, make_mesh(1), load_format="dummy", hf_overrides=change).spec
    assert len(spec.labels) == {"num_labels": 3, "id2label": 1}.get(key, 2)


@pytest.mark.parametrize("change", [{"is_causal": False}, {"use_bidirectional_attention": True}])
def test_tokens_that_see_those_behind_them_are_refused(change: Any, tmp_path: Any) -> None:
    message = rf"tokens see those behind.*{next(iter(change))}"
    for raw, overrides in ((RAW, change), ({**RAW, **change}, None)):
        (tmp_path / "config.json").write_text(json.dumps(raw))
        for read_it in (load, load_pooler):
            with pytest.raises(UnsupportedError, match=message):
                read_it(tmp_path, make_mesh(1), load_format="dummy", hf_overrides=overrides)


def test_an_unknown_architecture_is_loaded_as_a_known_one(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**RAW, "architectures": ["NewForCausalLM"]}))
    with pytest.raises(UnsupportedError, match="NewForCausalLM, which is not supported"):
        load(tmp_path, make_mesh(1), load_format="dummy")
    model = load(
        tmp_path, make_mesh(1), load_format="dummy",
        hf_overrides={"architectures": RAW["architectures"]},
    )  # fmt: skip
    assert model.config.architecture == "Qwen2ForCausalLM"
