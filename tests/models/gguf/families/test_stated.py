"""Families with experts and states: a file says what the folder says from which it was converted.

Its keys, and digests of its tensors, are those that llama.cpp's own converter wrote.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from models.config.decoder import ModelConfig
from models.errors import CheckpointError, UnsupportedError
from models.gguf.checkpoint import open_gguf_tensors, read_gguf_config
from models.gguf.families.registry import STATED
from models.registry import find_architecture
from tests.models.gguf.conversions import converted
from tests.models.gguf.families.test_families import load_gguf
from tests.models.gguf.files import write_gguf
from tests.models.gguf.stated_cases import STATED_CASES, changed, digest, drawn, recorded

RECORDED: Mapping[str, Any] = recorded()
MULTIPLIED = ("falcon_h1",)  # by factors, which its file does not say
ROUNDED = ("ssm_a",)  # exponentials, of which libraries round the last bit as they like


@cache
def tensors_of(name: str) -> Mapping[str, np.ndarray]:
    case, golden = changed(name)
    family = RECORDED[name]["keys"]["general.architecture"]
    return converted(family, case.config, drawn(case, golden))


def write(
    name: str,
    folder: Path,
    added: Mapping[str, np.ndarray] = MappingProxyType({}),
    without: str = "$^",
    **keys: Any,
) -> Path:
    """The file, with other keys of the architecture and tensors, or without some."""
    said = RECORDED[name]["keys"]
    family = said["general.architecture"]
    every = {key: one for key, one in said.items() if key != "general.architecture"}
    every = {key: one for key, one in every.items() if not re.search(without, key)}
    every |= {f"{family}.{key}": one for key, one in keys.items()}
    tensors = {k: one for k, one in tensors_of(name).items() if not re.search(without, k)}
    return write_gguf(folder / "a.gguf", family, every, {**tensors, **added})


@pytest.mark.parametrize("name", STATED_CASES)
def test_tensors_are_those_of_the_converter(name: str) -> None:
    theirs = {one: tuple(row) for one, row in RECORDED[name]["tensors"].items()}
    ours = {one: (list(array.shape), digest(array)) for one, array in tensors_of(name).items()}
    for one in (*ours, *theirs):
        if one.endswith(ROUNDED):
            theirs[one], ours[one] = ((row[one][0], "") for row in (theirs, ours))
    assert ours == theirs


@pytest.mark.parametrize("name", STATED_CASES)
def test_a_file_says_what_its_folder_says(name: str, tmp_path: Path) -> None:
    case, golden = changed(name)
    expected, path = drawn(case, golden), write(name, tmp_path)
    raw = read_gguf_config(path)
    config = find_architecture(raw, "a.gguf").config(raw)
    if STATED_CASES[name].exact:
        assert config == find_architecture(case.config, "config.json").config(case.config)
    with open_gguf_tensors(path) as found:
        assert found.keys() == expected.keys()
        for one, tensor in found.items():
            whole, (middle, end) = tensor.read(), (len(expected[one]) // 3, len(expected[one]) - 1)
            np.testing.assert_array_equal(tensor.read(middle, end), whole[middle:end])
            if (whole.ndim == 3 and "conv" not in one) or len(whole) == 1:  # of experts
                np.testing.assert_array_equal(tensor.entry(end).read(), whole[end])
            if name not in MULTIPLIED:
                check_equal(one, whole, expected[one], config.norm_offset)


def check_equal(name: str, ours: np.ndarray, theirs: np.ndarray, offset: bool) -> None:
    """But for logarithms of exponentials; norms by what the model computes with."""
    added = np.float32(offset and name.endswith("norm.weight"))
    rounds = 3e-7 if name.endswith("A_log") else 0
    np.testing.assert_allclose(ours + added, theirs + added, rtol=0, atol=rounds, err_msg=name)


def test_factors_that_are_in_the_tensors_are_not_said_again(tmp_path: Path) -> None:
    """Falcon-H1's."""
    plain = {k: v for k, v in changed("falcon_h1")[0].config.items() if "multiplier" not in k}
    expected = find_architecture(plain).config(plain | {"mamba_norm_before_gate": False})
    assert settings(write("falcon_h1", tmp_path)) == expected


def test_every_family_is_tested() -> None:
    assert {one["keys"]["general.architecture"] for one in RECORDED.values()} >= STATED.keys()


def opened(path: Path) -> dict[str, np.ndarray]:
    with open_gguf_tensors(path) as found:
        return {name: tensor.read() for name, tensor in found.items()}


def settings(path: Path) -> ModelConfig:
    raw = read_gguf_config(path)
    config = find_architecture(raw, "a.gguf").config(raw)
    assert isinstance(config, ModelConfig)
    return config


def test_latents_of_older_files_are_one_tensor_and_have_heads_of_their_own(tmp_path: Path) -> None:
    name, layers = "deepseek_v3", range(3)
    case, golden = changed(name)
    whole = drawn(case, golden)
    older = {
        f"blk.{n}.attn_kv_b.weight": whole[f"model.layers.{n}.self_attn.kv_b_proj.weight"]
        for n in layers
    }
    keys = {"attention.key_length": 18, "attention.value_length": 14, "attention.head_count_kv": 4}
    apart = write(name, tmp_path, without=r"_mla$", **keys)
    both = write(name, tmp_path, added=older, without=r"_mla$", **keys)
    alone = write(name, tmp_path, added=older, without=r"_mla$|attn_[kv]_b", **keys)
    expected = find_architecture(case.config).config(case.config)
    for path in (apart, both, alone):
        assert settings(path) == expected
        for one, tensor in opened(path).items():
            np.testing.assert_array_equal(tensor, whole[one])


def test_files_older_than_the_key_have_the_groups_of_deepseek_v3(tmp_path: Path) -> None:
    path = write("deepseek_v3", tmp_path, without="expert_group", expert_count=256)
    assert settings(path).mixture.groups == 8
    assert settings(write("deepseek_v3", tmp_path, without="expert_group")).mixture.groups == 1


def test_layers_that_predict_further_tokens_keep_the_checkpoints_names(tmp_path: Path) -> None:
    row = np.ones(40, np.float32)
    further = {"blk.3.nextn.enorm.weight": row, "blk.3.nextn.shared_head_norm.weight": row,
               "blk.3.attn_norm.weight": row}  # fmt: skip
    said = {"block_count": 4, "nextn_predict_layers": 1}
    path = write("glm4_moe", tmp_path, added=further, **said)
    assert settings(path).num_layers == 3
    inner = {name.removeprefix("model.layers.3.") for name in opened(path)}
    assert {"enorm.weight", "shared_head.norm.weight", "input_layernorm.weight"} <= inner


def test_layers_behind_the_last_are_left_out_where_nothing_reads_them(tmp_path: Path) -> None:
    further = {"blk.4.attn_norm.weight": np.ones(40, np.float32)}
    path = write("qwen3_next", tmp_path, added=further, block_count=5, nextn_predict_layers=1)
    assert settings(path).num_layers == 4
    assert opened(path).keys() == opened(write("qwen3_next", tmp_path)).keys()


def test_gate_and_up_of_experts_may_be_one(tmp_path: Path) -> None:
    gates = [f"blk.1.ffn_{one}_exps.weight" for one in ("gate", "up")]
    parts = [tensors_of("glm4_moe")[one] for one in gates]
    fused = {"blk.1.ffn_gate_up_exps.weight": np.concatenate(parts, axis=1)}
    path = write("glm4_moe", tmp_path, added=fused, without=r"blk\.1\.ffn_(gate|up)_exps")
    found, expected = opened(path), opened(write("glm4_moe", tmp_path))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[name])


@pytest.mark.parametrize("name", ["olmo", "jais2", "qwen3_5", "qwen3_next", "lfm2", "granite_swa"])
def test_queries_keys_and_values_may_be_one(name: str, tmp_path: Path) -> None:
    """With biases, with gates among queries, beside layers without heads, as `--fuse-qkv` does."""
    parts = fused(tensors_of(name))
    assert parts
    path = write(name, tmp_path, parts, without=r"attn_[qkv]\.(weight|bias)")
    config, found = settings(path), opened(path)
    plain = write(name, tmp_path)
    expected = opened(plain)
    assert config == settings(plain)
    assert found.keys() == expected.keys()
    for one, tensor in found.items():
        np.testing.assert_array_equal(tensor, expected[one])


def fused(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of queries, keys and values, those of a layer as one."""
    found: dict[str, np.ndarray] = {}
    for one in tensors:
        if ".attn_q." in one:
            three = [tensors[one.replace("attn_q", f"attn_{x}")] for x in "qkv"]
            found[one.replace("attn_q", "attn_qkv")] = np.concatenate(three)
    return found


def test_heads_that_do_not_fit_one_tensor_are_refused(tmp_path: Path) -> None:
    parts = {"blk.1.attn_qkv.weight": np.zeros((75, 40), np.float32)}
    path = write("jais2", tmp_path, parts, without=r"blk\.1\.attn_[qkv]\.")
    with pytest.raises(CheckpointError, match="75 rows, which are no 4 heads of 10 with 2"):
        settings(path)
    path = write("kimi_linear", tmp_path, {"blk.0.attn_qkv.weight": np.zeros((9, 40), np.float32)})
    with pytest.raises(UnsupportedError, match="heads of several sizes, which is not supported"):
        settings(path)


@pytest.mark.parametrize(
    ("name", "keys", "error", "message"),
    [
        ("deepseek_v3", {"expert_weights_norm": 3}, CheckpointError,
         r"a\.gguf: expert_weights_norm is 3; it must be true or false"),
        ("deepseek_v3", {"attention.key_length_mla": 8}, CheckpointError,
         r"attention\.key_length_mla is 8; it must be a whole number from 9 to"),
        ("deepseek_v3", {"expert_gating_func": 3}, UnsupportedError,
         r"expert_gating_func is 3, which is not supported; use 1"),
        ("deepseek_v3", {"rope.scaling.yarn_log_multiplier": 0.1}, UnsupportedError,
         r"yarn_log_multiplier is 0\.1 without rope\.scaling\.type yarn"),
        ("olmoe", {"expert_weights_scale": 2.5}, UnsupportedError,
         r"expert_weights_scale is 2\.5, which models of this architecture do not have"),
        ("mamba2", {"ssm.time_step_rank": 7}, CheckpointError,
         r"ssm\.inner_size is 120, and must be a multiple of ssm\.time_step_rank, which is 7"),
        ("qwen3_5", {"ssm.group_count": 4}, CheckpointError,
         r"ssm\.time_step_rank is 6; it must be a multiple of ssm\.group_count, which is 4"),
        ("jamba", {"attention.head_count": 0}, CheckpointError,
         r"attention\.head_count is 0; it must be a whole number from 1"),
        ("dbrx", {"attention.layer_norm_epsilon": 1e-6}, UnsupportedError, "use 1e-05"),
        ("glm4_moe", {"attention.sliding_window": 9}, UnsupportedError, "sliding_window is 9"),
        ("falcon_7b", {"attention.head_count_kv": 2}, UnsupportedError,
         r"a\.gguf is Falcon 2 \(11B\), whose rope\.freq_base its converter left out"),
        ("mpt", {"attention.max_alibi_bias": 0.0}, UnsupportedError,
         r"no attention\.max_alibi_bias, and an MPT without ALiBi"),
        ("mpt", {"attention.head_count_kv": 2}, UnsupportedError, "head_count_kv is 2"),
        ("granite_swa", {"attention.rope_pattern": False}, UnsupportedError,
         r"does not list in attention\.rope_pattern which of its 5 layers are rotated"),
        ("minimax_m2", {"block_count": 2, "nextn_predict_layers": 2}, CheckpointError,
         "block_count is 2; it must be a whole number from 3"),
    ],
)  # fmt: skip
def test_keys_that_cannot_be_are_refused(
    name: str, keys: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        settings(write(name, tmp_path, **keys))


@pytest.mark.parametrize(
    ("name", "added", "without", "message"),
    [
        ("deepseek_v3", {}, r"blk\.1\.attn_v_b", r"has 'blk\.1\.attn_k_b\.weight' and not all of"),
        ("deepseek_v3", {"blk.0.attn_v_b.weight": (4, 14, 18)}, "",
         r"attn_v_b\.weight' \[4, 14, 18\], which together are no 'model\.layers\.0\."),
        ("granite_moe", {"blk.0.ffn_up_exps.weight": (6, 23, 40)}, "", r"together are no 'model\."),
        ("qwen3_next", {"blk.0.attn_gate.weight": (80, 40)}, "", r"no '.*in_proj_qkvz"),
        ("qwen3_5", {"blk.1.ssm_beta.weight": (5, 40)}, "", "has 5 rows, and its keys call for 6"),
        ("qwen3_5", {"blk.1.ssm_out.weight": (40, 58)}, "", "ssm.inner_size says otherwise"),
        ("falcon_40b", {"blk.1.attn_qkv.weight": (70, 40)}, "",
         r"\[70, 40\], and 4 heads with 2 of keys call for 80 rows"),
        ("mamba", {"blk.1.ssm_a": (80, 12)}, "", r"'blk\.1\.ssm_a' has the rate 0, and rates of"),
    ],
)  # fmt: skip
def test_tensors_that_cannot_be_are_refused(
    name: str, added: dict[str, tuple[int, ...]], without: str, message: str, tmp_path: Path
) -> None:
    zeros = {one: np.zeros(shape, np.float32) for one, shape in added.items()}
    with pytest.raises(CheckpointError, match=message):
        opened(write(name, tmp_path, added=zeros, without=without or "$^"))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("falcon_7b", "blk.2.attn_qkv.bias"),  # RW, whose positions are biases of scores
        ("falcon_40b", "blk.0.ffn_norm.weight"),
        ("mpt", "position_embd.weight"),
        ("mpt", "blk.0.ffn_up.bias"),
        ("mpt", "blk.1.attn_q_norm.weight"),
    ],
)
def test_tensors_of_other_models_of_an_architecture_are_refused(
    name: str, tensor: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedError, match=rf"the tensor '{tensor}', which is not read"):
        settings(write(name, tmp_path, {tensor: np.zeros(40, np.float32)}))


def test_the_largest_neox_approximates_what_the_others_do_not(tmp_path: Path) -> None:
    """As its config.json says, and no key."""
    assert settings(write("gpt_neox", tmp_path)).activation == "gelu"
    sizes = {"block_count": 44, "feed_forward_length": 24576}
    assert settings(write("gpt_neox", tmp_path, **sizes)).activation == "gelu_fast"


def test_a_starcoder_without_heads_is_refused_by_the_tensor_that_it_lacks(
    tmp_path: Path,
) -> None:
    path = write("gpt_bigcode", tmp_path, without="attn_qkv")
    with pytest.raises(CheckpointError, match=r"lacks tensor '\S+c_attn"):
        load_gguf(path)


def test_an_mpt_of_other_width_has_that_of_its_tensors(tmp_path: Path) -> None:
    """Whose file says four times the model's."""
    wide = {"blk.0.ffn_up.weight": np.zeros((96, 48), np.float32)}
    assert settings(write("mpt", tmp_path, wide)).intermediate_size == 96


def test_a_falcon_with_its_base_is_read_though_it_has_one_norm(tmp_path: Path) -> None:
    """Falcon 2, whose file has been mended."""
    keys = {"rope.freq_base": 500042.0, "context_length": 8192}
    found = settings(write("falcon_40b", tmp_path, without="attn_norm_2", **keys))
    assert (found.parallel, found.num_kv_heads) == ("one norm", 2)
    assert found.layer_kinds[0].rope is not None and found.layer_kinds[0].rope.theta == 500042.0
    names = opened(tmp_path / "a.gguf").keys()
    assert "transformer.h.1.input_layernorm.weight" in names
    assert not {"transformer.h.1.ln_attn.weight", "transformer.h.1.ln_mlp.weight"} & names


def test_layers_of_jamba_that_are_not_evenly_apart_are_refused(tmp_path: Path) -> None:
    more = {"blk.2.attn_q.weight": np.ones((40, 40), np.float32)}
    with pytest.raises(UnsupportedError, match=r"attention in layers \[1, 2\], which are not even"):
        settings(write("jamba", tmp_path, added=more))


def test_gate_and_up_in_one_and_apart_are_not_chosen_between(tmp_path: Path) -> None:
    gate = tensors_of("olmoe")["blk.1.ffn_gate_exps.weight"]
    both = {"blk.1.ffn_gate_up_exps.weight": np.concatenate([gate, gate], axis=1)}
    with pytest.raises(CheckpointError, match=r"Two tensors .*\.1\.ffn_gate_exps\.weight'; conv"):
        opened(write("olmoe", tmp_path, both))


def test_a_file_without_an_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"a\.gguf lacks tensor 'token_embd\.weight'"):
        read_gguf_config(write("olmoe", tmp_path, without="^token_embd"))
