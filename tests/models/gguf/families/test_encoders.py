"""Encoders and T5: files named by the package's own tables mean the same as their folders."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.errors import CheckpointError, UnsupportedError
from models.gguf.checkpoint import open_gguf_tensors, read_gguf_config
from models.gguf.families.encoders import ENCODERS
from models.pooling_loading import LoadedPooler, load_pooler, pools_by_itself
from models.sharding import make_mesh
from tests.models.checkpoints.safetensors_files import write_checkpoint
from tests.models.gguf import files
from tests.models.gguf.families.test_families import load_gguf
from tests.models.gguf.files import gguf, write_gguf
from tests.parity import cases, encdec_cases, goldens, pooling_cases, pooling_goldens
from tests.parity.paged import load_case, write_case
from tests.parity.weights import tensor

Arrays = dict[str, np.ndarray]
FILE_OF = {
    "bert": "bert", "distilbert": "bert", "distilbert_classifier": "bert",
    "xlm_roberta_reranker": "bert", "nomic": "nomic-bert",
    "modernbert": "modern-bert", "modernbert_classifier": "modern-bert",
}  # fmt: skip
KEYS = {
    "hidden_size": "embedding_length", "dim": "embedding_length", "d_model": "embedding_length",
    "intermediate_size": "feed_forward_length", "hidden_dim": "feed_forward_length",
    "d_ff": "feed_forward_length", "num_hidden_layers": "block_count", "n_layers": "block_count",
    "num_layers": "block_count", "num_decoder_layers": "decoder_block_count",
    "num_attention_heads": "attention.head_count", "n_heads": "attention.head_count",
    "num_heads": "attention.head_count", "max_position_embeddings": "context_length",
    "n_positions": "context_length", "d_kv": "attention.key_length",
    "layer_norm_eps": "attention.layer_norm_epsilon",
    "layer_norm_epsilon": "attention.layer_norm_rms_epsilon",
    "local_attention": "attention.sliding_window",
    "global_attn_every_n_layers": "attention.sliding_window_pattern",
    "global_rope_theta": "rope.freq_base", "local_rope_theta": "rope.freq_base_swa",
    "relative_attention_num_buckets": "attention.relative_buckets_count",
    "decoder_start_token_id": "decoder_start_token_id",
}  # fmt: skip
LEFT_OUT = ("pooler.", "embed_tokens")


def keys(family: str, config: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What llama.cpp's converter writes for a config.json."""
    found = {KEYS[k]: v for k, v in config.items() if k in KEYS}
    if not family.startswith("t5"):
        found["attention.causal"] = False
        found.setdefault("attention.layer_norm_epsilon", config.get("norm_eps", 1e-5))
    if config["model_type"] == "distilbert":
        found["attention.layer_norm_epsilon"] = 1e-12
    if config["model_type"] == "xlm-roberta":
        found["context_length"] -= 2
    if "d_kv" in config:
        found["attention.value_length"] = config["d_kv"]
    ids = {"tokenizer.ggml.eos_token_id": config.get("eos_token_id", 2)}
    every = ids | {f"{family}.{k}": v for k, v in {**found, **more}.items()}
    return {k.removeprefix(f"{family}.") if ".ggml." in k else k: v for k, v in every.items()}


def converted(family: str, config: Mapping[str, Any], tensors: Arrays) -> Arrays:
    """The tensors under the names of the package's table, as the converter has them."""
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[family]
    table = gguf.get_tensor_name_map(arch, 8)
    found: Arrays = {}
    for name, array in tensors.items():
        bare = name
        for prefix in ("bert.", "distilbert.", "roberta.", "nomic_bert.", "model."):
            bare = bare.removeprefix(prefix)
        if any(one in bare for one in LEFT_OUT):
            continue
        if config["model_type"] in ("modernbert", "distilbert") and bare.startswith("classifier."):
            bare = bare.replace("classifier.", "classifier.out_proj.")
        if config["model_type"] == "xlm-roberta" and "position_embeddings" in bare:
            array = array[2:]
        named = table.get_name(bare, (".weight", ".bias"))
        assert named is not None and named not in found, name
        found[named] = np.ascontiguousarray(array)
    return found


def tensors_of(name: str) -> Arrays:
    case = pooling_cases.CASES[name]
    shapes = pooling_goldens.read(name).tensors
    return {n: tensor(case.seed, n, s, case.spread) for n, s in shapes}


def write(name: str, folder: Path, **more: Any) -> Path:
    config, family = dict(pooling_cases.CASES[name].config), FILE_OF[name]
    arrays = converted(family, config, tensors_of(name))
    return write_gguf(folder / "a.gguf", family, keys(family, config, **more), arrays)


def pooler(path: Path) -> LoadedPooler:
    return load_pooler(path, make_mesh(1), dtype="float32")


@pytest.mark.parametrize("name", FILE_OF)
def test_a_file_means_the_same_encoder_as_its_folder(name: str, tmp_path: Path) -> None:
    more = {"rope.freq_base": 1000.0} if name == "nomic" else {}
    if name == "modernbert_classifier":
        more = {"classifier.output_labels": ["no", "yes"], "classifier.pooling_type": 1}
    config = dict(pooling_cases.CASES[name].config)
    write_checkpoint(tmp_path / "folder", config, tensors_of(name))
    expected, found = pooler(tmp_path / "folder"), pooler(write(name, tmp_path, **more))
    moved = 2 if name.startswith("xlm") else 0  # rows of the padding's positions
    rows = expected.config.max_position_embeddings - moved
    same = {"architecture": found.config.architecture, "position_offset": 0}
    assert found.config == replace(expected.config, max_position_embeddings=rows, **same)
    assert found.spec.pooling == (expected.spec.pooling if expected.config.head else "CLS")
    assert found.spec.labels == (("no", "yes") if more and "modern" in name else
                                 expected.spec.labels)  # fmt: skip
    for leaf, ours, theirs in zip(found.layout.leaves, found.leaves, expected.leaves, strict=True):
        first = moved if leaf.paths[0] == "body.position_embedding" else 0
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs)[first:])


def test_the_file_says_which_states_are_pooled_and_one_row_may_have_no_axis(tmp_path: Path) -> None:
    for number, pooling in ((0, "CLS"), (1, "MEAN"), (2, "CLS"), (3, "LAST")):
        found = pooler(write("bert", tmp_path, pooling_type=number)).spec
        assert (found.pooling, found.activation, found.use_activation) == (
            pooling, "normalize", True,
        )  # fmt: skip
    name, config = "xlm_roberta_reranker", pooling_cases.CASES["xlm_roberta_reranker"].config
    arrays = converted("bert", config, tensors_of(name))
    for one in ("cls.output.weight", "token_types.weight"):
        assert arrays[one].shape == (1, 40)
        arrays[one] = arrays[one][0]
    path = write_gguf(tmp_path / "b.gguf", "bert", keys("bert", config, pooling_type=4), arrays)
    flat, whole = pooler(path), pooler(write(name, tmp_path))
    for ours, theirs in zip(flat.leaves, whole.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))
    assert flat.spec.labels == ("LABEL_0",) and flat.spec.activation == "sigmoid"


@pytest.mark.parametrize(
    ("name", "twice"), [("t5", False), ("t5", True), ("t5_gated_silu", False), ("umt5", False)]
)
def test_a_file_means_the_same_t5_as_its_folder(name: str, twice: bool, tmp_path: Path) -> None:
    case, golden = encdec_cases.CASES[name], goldens.read(name, encdec_cases.FOLDER)
    write_case(tmp_path / "folder", case, golden)
    expected = load_case(tmp_path / "folder", case)
    arrays = {n: tensor(case.seed, n, s, case.spread) for n, s in golden.tensors}
    if twice:  # as in files whose head is the embedding in other blocks
        arrays["lm_head.weight"] = arrays["shared.weight"] * 1.05
    path = write_gguf(
        tmp_path / "a.gguf", "t5", keys("t5", case.config), converted("t5", case.config, arrays)
    )
    found = load_gguf(path)
    assert found.config.logit_scale == expected.config.logit_scale
    assert found.eos_token_ids == expected.eos_token_ids
    assert found.config.encoder.layer_kinds == expected.config.encoder.layer_kinds
    if name == "t5":  # of the others no key says the activation, or the longest distance
        assert replace(found.config, context_length=expected.config.context_length) == (
            expected.config
        )
    for ours, theirs in zip(found.leaves, expected.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def test_the_encoder_of_t5_alone_gives_vectors(tmp_path: Path) -> None:
    case, golden = encdec_cases.CASES["t5"], goldens.read("t5", encdec_cases.FOLDER)
    arrays = {n: tensor(case.seed, n, s, case.spread) for n, s in golden.tensors
              if not n.startswith(("decoder", "lm_head"))}  # fmt: skip
    config = {**case.config, "architectures": ["T5EncoderModel"]}
    write_checkpoint(tmp_path / "folder", config, arrays)
    every = converted("t5encoder", config, arrays)
    path = write_gguf(tmp_path / "a.gguf", "t5encoder", keys("t5encoder", config), every)
    found, expected = pooler(path), pooler(tmp_path / "folder")
    assert found.config == expected.config
    for ours, theirs in zip(found.leaves, expected.leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"attention.causal": True}, UnsupportedError, "attention.causal is True"),
        ({"pooling_type": 9}, CheckpointError, "pooling_type is 9"),
        ({"expert_count": 8}, UnsupportedError, "expert_count is 8"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_gguf_config(write("bert", tmp_path, **changes))


def test_queries_keys_and_values_of_an_encoder_may_be_one(tmp_path: Path) -> None:
    config = pooling_cases.CASES["bert"].config
    arrays = converted("bert", config, tensors_of("bert"))
    fused = {k: one for k, one in arrays.items() if ".attn_output" in k or ".attn_" not in k}
    for layer, leaf in ((layer, leaf) for layer in range(2) for leaf in ("weight", "bias")):
        parts = [arrays[f"blk.{layer}.attn_{x}.{leaf}"] for x in "qkv"]
        fused[f"blk.{layer}.attn_qkv.{leaf}"] = np.concatenate(parts)
    path = write_gguf(tmp_path / "b.gguf", "bert", keys("bert", config), fused)
    plain = write("bert", tmp_path)
    with open_gguf_tensors(path) as found, open_gguf_tensors(plain) as expected:
        assert found.keys() == expected.keys()
        for name, one in found.items():
            np.testing.assert_array_equal(one.read(), expected[name].read())


def test_a_classifier_without_its_pooler_is_refused(tmp_path: Path) -> None:
    config = pooling_cases.CASES["bert"].config
    arrays = converted("bert", config, tensors_of("bert"))
    arrays["cls.output.weight"] = np.ones((2, 40), np.float32)
    path = write_gguf(tmp_path / "a.gguf", "bert", keys("bert", config), arrays)
    with pytest.raises(UnsupportedError, match="lacks the pooler"):
        read_gguf_config(path)


def test_a_classifier_without_types_of_tokens_is_distilberts(tmp_path: Path) -> None:
    """Whose norms add 1e-12: what adds more has another function in front of its classes."""
    said = {"attention.layer_norm_epsilon": 1e-5}
    with pytest.raises(UnsupportedError, match=r"layer_norm_epsilon is 1e-05.*use 1e-12"):
        read_gguf_config(write("distilbert_classifier", tmp_path, **said))


def test_a_decoders_file_may_say_that_it_gives_vectors(tmp_path: Path) -> None:
    """As Qwen3-Embedding's does; a head that ranks is not read."""
    case, golden = cases.CASES["qwen3"], goldens.read("qwen3")
    arrays = {n: tensor(case.seed, n, s, case.spread) for n, s in golden.tensors}
    path = tmp_path / "a.gguf"

    def raw(pooling: int) -> dict[str, Any]:
        said = files.metadata("qwen3", case.config) | {"qwen3.pooling_type": pooling}
        write_gguf(path, "qwen3", said, files.converted("qwen3", case.config, arrays))
        return read_gguf_config(path)

    assert not pools_by_itself(path, raw(0))
    assert pools_by_itself(path, raw(3))
    assert (pooler(path).spec.pooling, pooler(path).spec.activation) == ("LAST", "normalize")
    with pytest.raises(UnsupportedError, match="ranks texts with a head that is not read"):
        raw(4)


def test_every_kind_of_file_is_tested() -> None:
    assert {*ENCODERS} == {*FILE_OF.values(), "t5", "t5encoder"}
