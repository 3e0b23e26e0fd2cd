"""A config.json that contradicts its weights: one sentence with the file, the key, and both."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.checkpoints.contradictions import missing_tensor, surplus_tensor
from models.checkpoints.loading import load
from models.errors import ModelError
from models.sharding import make_mesh
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.parity.case import Case
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.weights import tensor

UP = "model.layers.0.mlp.up_proj.weight"


def tensors_of(name: str) -> dict[str, np.ndarray]:
    case: Case = CASES[name]
    return {n: tensor(case.seed, n, s, case.spread) for n, s in read(name).tensors}


def said(folder: Path, name: str, shards: int = 1, tensors: Any = None, **config: Any) -> str:
    """The error of a case whose config.json and tensors were changed."""
    held = {**tensors_of(name), **(tensors or {})}
    write_checkpoint(folder, {**CASES[name].config, **config}, held)
    with pytest.raises(ModelError) as error:
        load(folder, make_mesh(shards), dtype="float32")
    message = str(error.value).replace(str(folder), "M")
    assert message.count(". ") == 0 and message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"num_hidden_layers": 5},
         ["M lacks tensor 'model.layers.3.", "have 3 layers", "num_hidden_layers is 5"]),
        ({"num_hidden_layers": 1}, ["M has tensor 'model.layers.1.", "num_hidden_layers is 1"]),
        ({"vocab_size": 99}, ["M/model-1.safetensors", "[67, 40]", "[99, 40]", "vocab_size is 99"]),
        ({"hidden_size": 48}, ["embed_tokens", "[67, 40]", "[67, 48]", "hidden_size is 48"]),
        ({"intermediate_size": 64}, ["[40, 56]", "[40, 64]", "intermediate_size is 64"]),
        ({"num_attention_heads": 8, "head_dim": 10},
         ["[40, 64]", "[40, 80]", "num_attention_heads is 8 and head_dim is 10"]),
        ({"num_key_value_heads": 3}, ["4 attention heads and 3 key/value heads", "a multiple of"]),
        ({"attention_bias": True}, ["proj.bias'", "attention_bias is true"]),
        ({"tie_word_embeddings": False}, ["'lm_head.weight'", "tie_word_embeddings is false"]),
        ({"head_dim": 7}, ["7 of the 7 dimensions", "must be even"]),
        ({"rope_scaling": {"rope_type": "spiral"}}, ["rope_type is 'spiral'", "use default, "]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["rope_scaling has no factor"]),
        ({"hidden_act": "tanhh"}, ["hidden_act is 'tanhh'", "use silu"]),
        ({"quantization_config": {"quant_method": "hqq"}}, ["'hqq'", "only fp8"]),
        ({"quantization_config": ["fp8"]}, ["quantization_config is ['fp8']", "a JSON object"]),
        ({"quantization_config": {"quant_method": ["fp8"]}}, ["['fp8']", "only fp8"]),
        ({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": [1]}},
         ["quantization_config: config_groups is [1]", "a JSON object"]),
        ({"quantization_config": {"quant_method": "fp8"}}, ["by 'fp8'", "none of the tensors is"]),
    ],
)  # fmt: skip
def test_what_config_json_says_and_what_the_weights_have(
    tmp_path: Path, config: dict[str, Any], parts: list[str]
) -> None:
    message = said(tmp_path / "m", "llama3_2", **config)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"topk_method": "luck"}, ["topk_method is 'luck'", "use noaux_tc"]),
        ({"scoring_func": "tanh"}, ["scoring_func is 'tanh'", "use sigmoid"]),
        ({"num_experts_per_tok": 99}, ["num_experts_per_tok is 99", "a whole number from 1 to"]),
        ({"n_routed_experts": 10}, ["have 8 experts", "n_routed_experts is 10"]),
        ({"n_routed_experts": 6}, ["mlp.experts.6.", "(n_routed_experts is 6)"]),
        ({"n_shared_experts": 2}, ["n_shared_experts is 2 and moe_intermediate_size is 24"]),
        ({"qk_rope_head_dim": 16}, ["kv_lora_rank is 20 and qk_rope_head_dim is 16"]),
        ({"v_head_dim": 15}, ["num_attention_heads is 4 and ", "v_head_dim is 15"]),
    ],
)
def test_experts_and_latents_are_named(
    tmp_path: Path, config: dict[str, Any], parts: list[str]
) -> None:
    message = said(tmp_path / "m", "deepseek_v3", **config)
    assert [part for part in parts if part not in message] == [], message


@pytest.mark.parametrize(
    ("config", "name", "key"),
    [
        ({"decoder_layers": 9, "encoder_layers": 8}, "encoder.layers.5.fc1.w",
         "encoder_layers is 8"),
        ({"encoder_layers": 9, "decoder_layers": 8}, "decoder.layers.5.encoder_attn.w",
         "decoder_layers is 8"),
        ({"num_decoder_layers": 9, "num_layers": 8}, "encoder.block.5.layer.0.w",
         "num_layers is 8"),
        ({"num_layers": 9, "num_decoder_layers": 8}, "decoder.block.5.layer.0.w",
         "num_decoder_layers is 8"),
    ],
)  # fmt: skip
def test_layers_are_named_as_those_of_their_stack(
    config: dict[str, int], name: str, key: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert f"layers, and {key})" in str(missing_tensor(name, {name.replace("5", "1")}, tmp_path))
    settings = {one: 2 for one in config}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    said_of_it = str(surplus_tensor(name, {name.replace("5", "1")}, tmp_path))
    assert f"({key.partition(' ')[0]} is 2)" in said_of_it


def test_layers_are_counted_where_they_are(tmp_path: Path) -> None:
    held = {f"{part}.block.{n}.layer.0.w" for part, n in (("encoder", 0), ("decoder", 1))}
    (tmp_path / "config.json").write_text('{"num_layers": 2}')
    message = str(missing_tensor("encoder.block.1.layer.0.w", held, tmp_path))
    assert "(the weights have 1 layer, and num_layers is 2)" in message


def test_sizes_of_a_model_with_images_are_one_object_deeper(tmp_path: Path) -> None:
    text = {**CASES["gemma3_images"].config["text_config"], "vocab_size": 99}
    assert "(vocab_size is 99)" in said(tmp_path / "m", "gemma3_images", text_config=text)


def test_a_tensor_of_another_shape_or_dtype_is_named_with_its_file(tmp_path: Path) -> None:
    up = tensors_of("llama3_2")[UP]
    message = said(tmp_path / "a", "llama3_2", tensors={UP: np.ascontiguousarray(up.T)})
    assert f"{UP!r} of M/model-1.safetensors has the shape [40, 56]" in message
    assert "(intermediate_size is 56, hidden_size is 40)" in message
    message = said(tmp_path / "b", "llama3_2", tensors={UP: up.astype(np.int64)})
    assert f"{UP!r} of M/model-1.safetensors holds int64 and must hold bfloat16" in message


def test_heads_that_do_not_divide_over_the_mesh_are_named(tmp_path: Path) -> None:
    message = said(tmp_path / "m", "llama3_2", shards=3)
    assert "size of 3 does not divide the 4 query heads" in message
    assert "these sizes do: 1, 2, 4" in message
    message = said(tmp_path / "latent", "deepseek_v3", shards=3)  # its attention has no heads' rows
    assert "size of 3 does not divide the 4 query heads" in message
    message = said(tmp_path / "states", "mamba2", shards=2)
    assert "no attention heads that could be divided among 2 devices" in message
