"""Dense families, whose tensors the package gguf itself names, as in llama.cpp's converter."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import UnsupportedError
from models.gguf.families.dense import DENSE
from tests.models.gguf.families.test_families import compare_leaves, load_gguf
from tests.models.gguf.files import KEYS, gguf, in_pairs, together, write_gguf
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.paged import load_case, write_case
from tests.parity.weights import tensor

CASE_OF = {
    "arcee": "arcee", "cohere2": "cohere2", "command-r": "cohere", "ernie4_5": "ernie4_5",
    "exaone4": "exaone4", "glm4": "glm4", "granite": "granite", "nemotron": "nemotron",
    "olmo2": "olmo2", "phi2": "phi", "qwen2moe": "qwen2_moe", "seed_oss": "seed_oss",
    "stablelm": "stablelm",
}  # fmt: skip
PAIRED = ("arcee", "granite", "smollm3")  # whose converter is a Llama's
ROTATED = {"glm4": 0.5, "nemotron": 0.5, "stablelm": 0.25}  # of a head, where config.json is silent
EPSILONS = ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")
NUMBERS = {
    "attention_multiplier": "attention.scale",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
    "logit_scale": "logit_scale",
    "shared_expert_intermediate_size": "expert_shared_feed_forward_length",
}


def keys(family: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the converter of a family writes for a config.json."""
    names = {k: v for k, v in {**KEYS, **NUMBERS}.items() if k != "sliding_window_pattern"}
    found = {names[k]: v for k, v in config.items() if k in names}
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    found["attention.key_length"] = found["attention.value_length"] = dim
    part = config.get("partial_rotary_factor", ROTATED.get(family, 1.0))
    found["rope.dimension_count"] = int(part * dim)
    found["attention.layer_norm_epsilon"] = next(
        (config[name] for name in EPSILONS if name in config), 1e-5
    )
    if family == "command-r" or family == "cohere2":
        found.setdefault("logit_scale", 0.0625)
        found["rope.scaling.type"] = "none"
    if family == "starcoder2":
        del found["attention.sliding_window"]
    if family == "exaone4":
        every = config["sliding_window_pattern"]
        slides = [(layer + 1) % every != 0 for layer in range(layers)]
        found["attention.sliding_window_pattern"] = slides
    if family == "stablelm":
        found["use_parallel_residual"] = config.get("use_parallel_residual", False)
    tokens = {
        f"tokenizer.ggml.{which}_token_id": number for which, number in (("eos", 2), ("bos", 1))
    }
    return {f"{family}.{key}": value for key, value in found.items()} | tokens


def converted(family: str, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Any:
    """Their names by the package's own table, and what the converter does to their numbers."""
    known = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    tables = [  # the case of qwen2moe has a dense layer, which its models do not
        gguf.get_tensor_name_map(known[one], config["num_hidden_layers"])
        for one in (family, "llama")
    ]
    found: dict[str, np.ndarray] = {}
    for name, array in together(tensors).items():
        key = name.replace("experts.#.", "experts.")
        named = next(filter(None, (one.get_name(key, (".weight", ".bias")) for one in tables)))
        if family in PAIRED and name.rpartition(".")[0].endswith(("q_proj", "k_proj")):
            count = "num_attention_heads" if "q_proj" in name else "num_key_value_heads"
            array = in_pairs(array, config[count])
        if family == "nemotron" and name.endswith("norm.weight"):
            array = array + np.float32(1)
        found[named] = np.ascontiguousarray(array)
    return found


def write(family: str, name: str, folder: Path, **added: Any) -> Path:
    case, golden = CASES[name], read(name)
    tensors = {one: tensor(case.seed, one, shape, case.spread) for one, shape in golden.tensors}
    every = keys(family, case.config) | {f"{family}.{k}": v for k, v in added.items()}
    return write_gguf(folder / "a.gguf", family, every, converted(family, case.config, tensors))


@pytest.mark.parametrize("family", CASE_OF)
def test_a_file_means_the_same_model_as_its_folder(family: str, tmp_path: Path) -> None:
    name = CASE_OF[family]
    write_case(tmp_path / "folder", CASES[name], read(name))
    expected = load_case(tmp_path / "folder", CASES[name])
    found = load_gguf(write(family, name, tmp_path), CASES[name].context)
    assert found.config == expected.config
    compare_leaves(found, expected)


def test_starcoder_slides_which_no_key_says(tmp_path: Path) -> None:
    write_case(tmp_path / "folder", CASES["starcoder2"], read("starcoder2"))
    expected = load_case(tmp_path / "folder", CASES["starcoder2"])
    file = write("starcoder2", "starcoder2", tmp_path)
    found = load_gguf(file)
    assert {one.window for one in found.config.layer_kinds} == {4096}
    compare_leaves(found, replace(expected, config=found.config))


def test_every_fourth_layer_of_smollm3_does_not_rotate_which_no_key_says(tmp_path: Path) -> None:
    write_case(tmp_path / "folder", CASES["smollm3"], read("smollm3"))
    expected = load_case(tmp_path / "folder", CASES["smollm3"])
    found = load_gguf(write("smollm3", "smollm3", tmp_path))
    assert all(one.rope is not None for one in found.config.layer_kinds)  # of three layers
    compare_leaves(found, expected)


def test_layers_slide_as_often_as_the_file_says(tmp_path: Path) -> None:
    path = write("cohere2", "cohere2", tmp_path, **{"attention.sliding_window_pattern": 2})
    windows = [one.window for one in load_gguf(path).config.layer_kinds]
    assert windows == [9, None, 9, None, 9]


def test_norms_of_each_head_are_refused(tmp_path: Path) -> None:
    case, golden = CASES["stablelm"], read("stablelm")
    tensors = {one: tensor(case.seed, one, shape, case.spread) for one, shape in golden.tensors}
    every = converted("stablelm", case.config, tensors)
    every["blk.0.attn_q_norm.weight"] = np.ones((4, 16), np.float32)
    file = write_gguf(tmp_path / "a.gguf", "stablelm", keys("stablelm", case.config), every)
    with pytest.raises(UnsupportedError, match="a norm for each head"):
        load_gguf(file)


def test_a_key_of_another_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="residual_scale"):
        load_gguf(write("olmo2", "olmo2", tmp_path, residual_scale=0.5))


def test_every_family_is_tested() -> None:
    assert DENSE.keys() == CASE_OF.keys() | {"starcoder2", "smollm3"}
