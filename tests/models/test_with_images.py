"""Text models inside of checkpoints that take images: what published files leave out, and names."""

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import pytest

from models.config.decoder import ModelConfig
from models.errors import UnsupportedError
from models.registry import find_architecture
from tests.parity.image_cases import WITH_IMAGES

GEMMA_3_4B = {
    "architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106],
    "text_config": {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
        "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"model_type": "siglip_vision_model"},
}  # fmt: skip


def parse(raw: Mapping[str, Any]) -> ModelConfig:
    return find_architecture(raw).config(raw)


def test_what_gemma_3_leaves_out_is_its_familys() -> None:
    config = parse(GEMMA_3_4B)
    sizes = config.num_heads, config.num_kv_heads, config.head_dim, config.vocab_size
    assert sizes == (8, 4, 256, 262208) and config.tied_head
    assert config.eos_token_ids == (1, 106) and config.max_position_embeddings == 131072
    assert [kind.window for kind in config.layer_kinds[:6]] == [1024] * 5 + [None]


@pytest.mark.parametrize(
    "name, outer, inner, tied",
    [
        ("gemma3_images", {"tie_word_embeddings": False}, None, False),
        ("ministral3_images", {"tie_word_embeddings": True}, False, False),
        ("llava", {}, True, True), ("llava", {}, None, False),
        ("qwen3_vl", {"tie_word_embeddings": True}, None, True),
        ("qwen2_5_vl", {"tie_word_embeddings": True}, None, True),
    ],
)  # fmt: skip
def test_a_head_is_tied_where_the_file_says_so(
    name: str, outer: dict[str, Any], inner: bool | None, tied: bool
) -> None:
    raw = {k: v for k, v in WITH_IMAGES[name].config.items() if k != "tie_word_embeddings"}
    if "text_config" in raw:
        text = {k: v for k, v in raw["text_config"].items() if k != "tie_word_embeddings"}
        raw["text_config"] = text if inner is None else {**text, "tie_word_embeddings": inner}
    assert parse({**raw, **outer}).tied_head is tied


@pytest.mark.parametrize("name", WITH_IMAGES)
def test_names_are_those_of_authors_or_of_transformers_5(name: str) -> None:
    raw = WITH_IMAGES[name].config
    usual = find_architecture(raw).weights(parse(raw))
    newer = usual.otherwise
    assert newer is not None
    assert "model.language_model.layers.0.self_attn.q_proj.weight" in newer.needed
    assert usual.suited(newer.needed) is newer and usual.suited(usual.needed) is usual
    unread = ("vision_tower.x", "model.vision_tower.x", "visual.x", "multi_modal_projector.x")
    assert all(any(fnmatch(one, pattern) for pattern in newer.ignored) for one in unread)
    assert not any(fnmatch(one, pattern) for one in newer.needed for pattern in newer.ignored)


def test_texts_of_other_families_are_refused() -> None:
    text = {**WITH_IMAGES["llava"].config["text_config"], "model_type": "mamba"}
    with pytest.raises(UnsupportedError, match=r"model_type is 'mamba'.*use llama, mistral, qwen2"):
        parse({**WITH_IMAGES["llava"].config, "text_config": text})


def test_mistral_small_has_no_window_and_a_head_of_its_own() -> None:
    text = {"model_type": "mistral", "sliding_window": None, "hidden_size": 5120, "head_dim": 128}
    config = parse({"architectures": ["Mistral3ForConditionalGeneration"], "text_config": text})
    assert {kind.window for kind in config.layer_kinds} == {None} and not config.tied_head
    assert (config.num_kv_heads, config.num_heads) == (8, 32)
