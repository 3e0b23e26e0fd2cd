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


def test_an_unknown_one_lists_the_supported_and_the_nearest() -> None:
    with pytest.raises(UnsupportedError) as error:
        registry.find_architecture({"architectures": ["Qwen3EvenForCausalLM"]})
    message = str(error.value)
    assert "nearest name is Qwen3ForCausalLM" in message
    assert all(name in message for name in registry.supported())


def test_one_that_resembles_nothing_has_no_nearest() -> None:
    with pytest.raises(UnsupportedError) as error:
        registry.find_architecture({"architectures": ["Zzz"]})
    assert "nearest" not in str(error.value)


def test_a_multimodal_model_is_refused_with_the_reason() -> None:
    raw = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": {}}
    with pytest.raises(UnsupportedError, match="only text models"):
        registry.find_architecture(raw)


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
