"""Finding the file of an architecture, and the errors where there is none."""

from pathlib import Path

import pytest

from models import architectures, registry
from models.errors import CheckpointError, UnsupportedError

NEW_FAMILY = """
from models.architectures import llama
ARCHITECTURES = ("NewForCausalLM", "NewerForCausalLM")
config, weights = llama.config, llama.weights
"""


def test_an_architecture_is_found_by_its_string() -> None:
    found = registry.find_architecture({"architectures": ["Qwen3ForCausalLM"]})
    assert found.ARCHITECTURES == ("Qwen3ForCausalLM",)


def test_an_unknown_one_names_the_nearest_and_where_the_list_is() -> None:
    with pytest.raises(UnsupportedError) as error:
        registry.find_architecture({"architectures": ["Qwen3EvenForCausalLM"]}, "/m/config.json")
    message = str(error.value)
    assert message.startswith("/m/config.json names the architecture Qwen3EvenForCausalLM,")
    assert "the nearest are Qwen3ForCausalLM, " in message and "README's table" in message
    assert len(message) < 400


def test_one_that_resembles_nothing_has_no_nearest() -> None:
    with pytest.raises(UnsupportedError) as error:
        registry.find_architecture({"architectures": ["Zzz"]})
    assert "nearest" not in str(error.value)


def test_a_multimodal_model_is_refused_with_the_reason() -> None:
    raw = {"architectures": ["OtherForConditionalGeneration"], "text_config": {}}
    with pytest.raises(UnsupportedError, match="takes more than text"):
        registry.find_architecture(raw)


@pytest.mark.parametrize(
    "model_type, name",
    [
        ("llama", "LlamaForCausalLM"), ("gpt_neox", "GPTNeoXForCausalLM"),
        ("qwen3_moe", "Qwen3MoeForCausalLM"), ("gemma3_text", "Gemma3ForCausalLM"),
        ("gpt2", "GPT2LMHeadModel"), ("t5", "T5ForConditionalGeneration"),
        ("xlm-roberta", "XLMRobertaModel"), ("of my own", "..."), (None, "..."),
    ],
)  # fmt: skip
def test_a_file_that_names_none_is_told_which_it_may_be(model_type: object, name: str) -> None:
    with pytest.raises(CheckpointError) as error:
        registry.architecture_name({"model_type": model_type}, "/m/config.json")
    assert str(error.value).startswith("/m/config.json has no architectures,")
    assert f'--hf-overrides \'{{"architectures": ["{name}"]}}\'' in str(error.value)


@pytest.mark.parametrize("names", [None, [], "LlamaForCausalLM", [3], {}])
def test_config_json_must_name_one(names: object) -> None:
    with pytest.raises(CheckpointError, match="architectures"):
        registry.find_architecture({"architectures": names})


def test_a_new_file_needs_no_mention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "newfamily.py").write_text(NEW_FAMILY)
    monkeypatch.setattr(architectures, "__path__", [*architectures.__path__, str(tmp_path)])
    registry._modules.cache_clear()
    try:
        assert "NewerForCausalLM" in registry.supported()
    finally:
        registry._modules.cache_clear()
