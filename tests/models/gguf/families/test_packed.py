"""Dense families and mixtures of which files say things in ways of their own, or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import CheckpointError, ModelError, UnsupportedError
from models.gguf.checkpoint import read_gguf_generation_config
from models.layers.rope import LongRope, Unscaled
from tests.models.gguf.families.test_families import compare_leaves, load_gguf
from tests.models.gguf.families.test_stated import RECORDED, opened, settings, tensors_of, write
from tests.models.gguf.files import factors, write_gguf
from tests.models.gguf.stated_cases import changed
from tests.parity.cases import CASES
from tests.parity.paged import load_case, write_case


@pytest.mark.parametrize("name", ["apertus", "gemma4_26b", "gemma4_e2b"])
def test_a_file_is_loaded_as_its_folder(name: str, tmp_path: Path) -> None:
    case, golden = changed(name)
    write_case(tmp_path / "folder", case, golden)
    expected, found = load_case(tmp_path / "folder", case), load_gguf(write(name, tmp_path))
    assert found.config == expected.config
    compare_leaves(found, expected)


def test_baichuan_13b_does_not_rotate_which_no_key_says(tmp_path: Path) -> None:
    config = settings(write("baichuan", tmp_path, block_count=40))
    assert all(one.rope is None for one in config.layer_kinds)
    assert config.slopes is not None and config.max_position_embeddings == 128
    assert settings(write("baichuan", tmp_path)).slopes is None


def test_baichuan_2_norms_its_head_which_no_key_says(tmp_path: Path) -> None:
    second = {"token_embd.weight": np.zeros((125_696, 1), np.float32)}
    assert settings(write("baichuan", tmp_path, added=second)).head_unit
    assert not settings(write("baichuan", tmp_path)).head_unit


def test_queries_keys_and_values_of_a_glm_may_be_apart(tmp_path: Path) -> None:
    whole, apart = tensors_of("chatglm"), {}
    for name, array in whole.items():
        if "attn_qkv" in name:  # two heads of queries, and one of keys
            for one, part in zip("qkv", np.split(array, [40, 60]), strict=True):
                apart[name.replace("qkv", one)] = part
    path = write("chatglm", tmp_path, added=apart, without="attn_qkv")
    assert settings(path).qkv_bias
    found, expected = opened(path), opened(write("chatglm", tmp_path))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[name])


def test_files_of_minicpm_without_factors_have_those_of_the_first(tmp_path: Path) -> None:
    config = settings(write("minicpm", tmp_path, without="_scale$"))
    assert config.embedding_scale == 12
    assert config.residual_scale == 1.4 / 3**0.5
    assert config.logit_scale == 256 / 40


def test_apertus_has_divisors_of_frequencies(tmp_path: Path) -> None:
    """Where its positions are stretched as Llama 3's."""
    config = CASES["apertus"].config
    for added, scaling in ((factors(config), LongRope), ({}, Unscaled)):
        kinds = settings(write("apertus", tmp_path, added=added)).layer_kinds
        assert all(one.rope and isinstance(one.rope.scaling, scaling) for one in kinds)


def test_layers_slide_as_a_trinitys_file_lists(tmp_path: Path) -> None:
    listed = {"attention.sliding_window_pattern": [True, False, True]}
    windows = [one.window for one in settings(write("afmoe", tmp_path, **listed)).layer_kinds]
    assert windows == [9, None, 9]
    every = {"attention.sliding_window_pattern": 2}
    windows = [one.window for one in settings(write("afmoe", tmp_path, **every)).layer_kinds]
    assert windows == [9, None, 9]


def test_command_a_has_other_norms_and_scores_where_its_file_says_so(tmp_path: Path) -> None:
    said = {"attention.layer_norm_rms_epsilon": 1e-6, "expert_gating_func": 1}
    config = settings(write("cohere2_moe", tmp_path, **said))
    assert (config.norm, config.norm_eps, config.mixture.score) == ("rms", 1e-6, "softmax")
    config = settings(write("cohere2_moe", tmp_path))
    assert (config.norm, config.norm_eps, config.mixture.score) == ("layer", 1e-5, "sigmoid")


def test_layers_behind_the_last_are_not_read(tmp_path: Path) -> None:
    further = {"blk.3.attn_norm.weight": np.ones(40, np.float32)}
    for name in ("bailing_moe_v2", "hy_v3"):
        path = write(name, tmp_path, added=further, block_count=4, nextn_predict_layers=1)
        assert settings(path).num_layers == 3
        assert not any(".3." in one and "experts" not in one for one in opened(path))


@pytest.mark.parametrize(
    ("name", "keys", "error", "message"),
    [
        ("chatglm", {"rope.dimension_count": 20}, UnsupportedError, "20, and half of each head"),
        ("minicpm", {"logit_scale": 3.0}, UnsupportedError, "40, is no whole multiple"),
        ("minicpm3", {"attention.key_length": 33}, CheckpointError, "no keys of 25 and values"),
        ("decilm", {"feed_forward_length": [256, 512, 500, 0]}, UnsupportedError, "of 500 units"),
        ("decilm", {"attention.head_count": [4, 4, 4, 4]}, UnsupportedError, "4 heads without"),
        ("decilm", {"attention.head_count_kv": [2, 0, 3, 2]}, UnsupportedError, "3 heads of keys"),
        ("decilm", {"attention.head_count_kv": [2, 0, 1]}, CheckpointError, "lists 3 layers of 4"),
        ("hy_v3", {"expert_shared_feed_forward_length": 40}, UnsupportedError, "is 40, which is"),
        ("afmoe", {"attention.sliding_window_pattern": [True]}, CheckpointError, "lists 1 layers"),
        ("gemma4_e2b", {"rope.dimension_count_swa": 8}, UnsupportedError, "is 8, .*; use 16"),
        ("gemma4_e2b", {"feed_forward_length": [56, 56, 56, 56, 56, 112]}, UnsupportedError,
         "is not one number in layers with keys of their own"),
        ("gemma4_26b", {"attention.head_count_kv": [2, 1, 1, 2, 1, 1]}, UnsupportedError,
         "differs among layers of one type"),
        ("gemma4_26b", {"attention.sliding_window_pattern": 6}, CheckpointError, "0 layers of 6"),
    ],
)  # fmt: skip
def test_keys_that_cannot_be_are_refused(
    name: str, keys: dict[str, Any], error: type[ModelError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        settings(write(name, tmp_path, **keys))


@pytest.mark.parametrize("divisors", [[1.0] * 4, [1.0, 8.0] + [1e30] * 10])
def test_divisors_that_gemma_4_cannot_have_are_refused(
    divisors: list[float], tmp_path: Path
) -> None:
    other = {"rope_freqs.weight": np.array(divisors, np.float32)}
    with pytest.raises(ModelError, match="rope_freqs"):
        settings(write("gemma4_26b", tmp_path, added=other))


def test_values_of_other_heads_than_keys_are_refused(tmp_path: Path) -> None:
    values = {f"blk.{layer}.attn_v.weight": np.ones((24, 40), np.float32) for layer in (2, 4, 5)}
    with pytest.raises(UnsupportedError, match="other numbers of heads in layers that slide"):
        settings(write("gemma4_26b", tmp_path, added=values))


@pytest.mark.parametrize(("turn", "expected"), [("<turn|>", [1, 3, 4]), ("<x>", [1])])
def test_a_turn_of_gemma_4_ends_a_text(turn: str, expected: list[int], tmp_path: Path) -> None:
    keys = {
        "tokenizer.ggml.tokens": ["<bos>", "<eos>", "a", turn, "<|tool_response>"],
        "tokenizer.ggml.token_type": [3, 3, 1, 3, 4],
        "tokenizer.ggml.eos_token_id": 1,
    }
    path = write_gguf(tmp_path / "a.gguf", "gemma4", keys, {})
    assert read_gguf_generation_config(path)["eos_token_id"] == expected


@pytest.mark.parametrize("key", ["xielu.beta", "xielu.eps"])
def test_another_bend_of_an_activation_is_refused(key: str, tmp_path: Path) -> None:
    every = RECORDED["apertus"]["keys"] | {key: [0.25] * 3}
    family = every.pop("general.architecture")
    path = write_gguf(tmp_path / "a.gguf", family, every, tensors_of("apertus"))
    with pytest.raises(UnsupportedError, match=f"{key} is not .* in every layer"):
        opened(path)


def test_queries_that_are_no_heads_are_refused(tmp_path: Path) -> None:
    other = {"blk.0.attn_q.weight": np.ones((36, 40), np.float32)}
    for name in ("internlm2", "baichuan"):
        with pytest.raises(CheckpointError, match="together are no 'model"):
            opened(write(name, tmp_path, added=other))
