"""Tokenizers out of GGUF files: the ids of the Hugging Face files, and of llama.cpp's vectors."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.tokenizers.gguf_words import LLAMA3_WORDS
from engine.tokenizers.tokenizer import Tokenizer
from models.errors import CheckpointError, ModelError, UnsupportedError
from tests.engine.tokenizers_small import load
from tests.models.gguf.files import gguf, write_gguf

BETWEEN = "\n__ggml_vocab_test__\n"
SMALL = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "gpt-2",
    "tokenizer.ggml.tokens": ["a", "b", "ab", "Ġ", "<s>", "<tool>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 1, 3, 4],
    "tokenizer.ggml.merges": ["a b"],
    "tokenizer.ggml.bos_token_id": 4,
    "tokenizer.ggml.eos_token_id": 4,
    "tokenizer.chat_template": "{{ messages }}",
}
PIECES = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)),
                              "▁", "a", "b", "▁a", "ab", "▁ab"],
    "tokenizer.ggml.token_type": [2, 3, *[6] * 256, *[1] * 6],
    "tokenizer.ggml.scores": [0.0] * 258 + [-9.0, -9.0, -9.0, -2.0, -1.0, -3.0],
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.bos_token_id": 1,
}  # fmt: skip


def write(path: Path, keys: dict[str, Any]) -> Path:
    return write_gguf(path / "a.gguf", "llama", keys, {})


def vocabulary_of(tokenizer: Tokenizer, **keys: Any) -> dict[str, Any]:
    """A tokenizer's vocabulary as a GGUF file has it."""
    described = json.loads(tokenizer.to_json())
    ids = described["model"]["vocab"]
    added = {one["content"]: one for one in described["added_tokens"]}
    ids |= {name: one["id"] for name, one in added.items()}
    tokens = sorted(ids, key=ids.__getitem__)
    kinds = [(3 if added[t]["special"] else 4) if t in added else 1 for t in tokens]
    assert [ids[token] for token in tokens] == list(range(len(tokens)))
    return {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": kinds, **keys}


def compare_with_vectors(tokenizer: Tokenizer, shared_data: Path, name: str) -> None:
    vectors = shared_data / "tokenizers" / "vectors"
    texts = (vectors / f"ggml-vocab-{name}.gguf.inp").read_text(encoding="utf-8").split(BETWEEN)
    expected = (vectors / f"ggml-vocab-{name}.gguf.out").read_text().splitlines()
    pairs = list(zip(texts, expected, strict=False))
    assert len(pairs) > 40
    for text, ids in pairs:
        assert tokenizer.encode(text, add_special_tokens=False) == [int(i) for i in ids.split()]


@pytest.mark.parametrize(("name", "vectors"), [("gpt2", "gpt-2"), ("qwen2.5", "qwen2")])
def test_merges_give_the_ids_of_llama_cpp(shared_data, tmp_path, name, vectors) -> None:
    folder = shared_data / "tokenizers" / name
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    keys = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": vectors,
        "tokenizer.ggml.merges": [one for one in merges if one and not one.startswith("#version")],
    }
    found = load(write(tmp_path, vocabulary_of(load(folder), **keys)))
    compare_with_vectors(found, shared_data, vectors)


def test_llama_3_has_its_own_words(shared_data, tmp_path) -> None:
    folder = shared_data / "tokenizers" / "llama3.2"
    ids = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    keys = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": sorted(ids, key=ids.__getitem__),
        "tokenizer.ggml.merges": [one for one in merges if one and not one.startswith("#version")],
    }
    compare_with_vectors(load(write(tmp_path, keys)), shared_data, "llama-bpe")
    assert "{1,3}" in LLAMA3_WORDS


def test_scores_give_the_ids_of_llama_cpp(shared_data, tmp_path) -> None:
    folder = shared_data / "tokenizers" / "phi-3"
    keys = vocabulary_of(load(folder))
    tokens, kinds = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    for place in range(3, 259):
        assert tokens[place].startswith("<0x")
        kinds[place] = 6
    # the file's merges lie in the order of their scores, which runs of spaces have the worst of
    scores = {token: -1e9 for token in tokens}
    merges = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    for rank, merge in enumerate(merges):
        token = "".join(merge.split(" ") if isinstance(merge, str) else merge)
        scores[token] = max(scores[token], -float(rank))
    keys["tokenizer.ggml.scores"] = [scores[token] for token in tokens]
    keys |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.unknown_token_id": 0}
    compare_with_vectors(load(write(tmp_path, keys)), shared_data, "phi-3")


def test_special_tokens_and_templates_are_read(tmp_path) -> None:
    tokenizer = load(write(tmp_path, SMALL | {"tokenizer.chat_template.tool_use": "{{ 1 }}"}))
    assert tokenizer.encode("ab<s> a<tool>") == [2, 4, 3, 0, 5]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.special_ids) == (4, 4, {4})
    assert tokenizer.chat_templates == {"default": "{{ messages }}", "tool_use": "{{ 1 }}"}
    assert tokenizer.decode([2, 3, 0]) == "ab a"


def test_bos_stands_before_a_text_where_the_file_says_so(tmp_path) -> None:
    tokenizer = load(write(tmp_path, SMALL | {"tokenizer.ggml.add_bos_token": True}))
    assert tokenizer.encode("a") == [4, 0]
    assert load(write(tmp_path, PIECES)).encode("") == [1]


def test_better_scores_are_merged_first(tmp_path) -> None:
    tokenizer = load(write(tmp_path, PIECES | {"tokenizer.ggml.add_bos_token": False}))
    tokens = PIECES["tokenizer.ggml.tokens"]
    ids = tokenizer.encode("ab aé")
    assert [tokens[one] for one in ids] == ["▁ab", "▁a", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids) == "ab aé"
    bare = load(write(tmp_path, PIECES | {"tokenizer.ggml.add_space_prefix": False}))
    assert [tokens[one] for one in bare.encode("ab")] == ["<s>", "ab"]
    assert bare.decode(bare.encode(" ab")) == " ab"


def test_a_file_that_does_not_say_how_words_are_split_has_those_of_its_architecture(
    tmp_path,
) -> None:
    """StarCoder's number is a token for each digit; GPT-2's is a word."""
    keys = {key: one for key, one in SMALL.items() if key != "tokenizer.ggml.pre"}
    keys |= {"tokenizer.ggml.tokens": ["1", "2", "12", "Ġ", "<s>", "<tool>"],
             "tokenizer.ggml.merges": ["1 2"]}  # fmt: skip
    for family, ids in (("gpt2", [2]), ("mpt", [2]), ("starcoder", [0, 1])):
        file = write_gguf(tmp_path / "a.gguf", family, keys, {})
        assert load(file).encode("12", add_special_tokens=False) == ids


def test_gemma_4_has_merges_and_marks_for_spaces(tmp_path) -> None:
    keys = PIECES | {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.merges": ["▁ a", "▁a b", "a b"],  # that with the best score is the last
        "tokenizer.ggml.add_space_prefix": False,
    }
    tokens, tokenizer = keys["tokenizer.ggml.tokens"], load(write(tmp_path, keys))
    ids = tokenizer.encode("ab abé")
    assert [tokens[one] for one in ids] == ["<s>", "ab", "▁ab", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(ids[1:]) == "ab abé"
    less = load(write(tmp_path, keys | {"tokenizer.ggml.merges": ["a b"]}))
    assert [tokens[one] for one in less.encode(" ab")] == ["<s>", "▁", "ab"]


def test_a_file_without_tokenizer_has_none(tmp_path) -> None:
    assert Tokenizer.load(write(tmp_path, {"general.name": "ids only"})) is None


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"tokenizer.ggml.model": "rwkv"}, UnsupportedError, "'rwkv', which is not supported"),
        ({"tokenizer.ggml.pre": "superbpe"}, UnsupportedError, "'superbpe', which is not"),
        ({"tokenizer.ggml.tokens": [*"abcdea"]}, CheckpointError, "names a token twice"),
        ({"tokenizer.ggml.tokens": "a"}, CheckpointError, "must be a list of strings"),
        ({"tokenizer.ggml.token_type": [1]}, CheckpointError, "must be 6 numbers"),
        ({"tokenizer.ggml.merges": ["a"]}, CheckpointError, "does not hold a vocabulary"),
        ({"tokenizer.ggml.merges": ["a z"]}, CheckpointError, "does not hold a vocabulary"),
        ({"tokenizer.ggml.eos_token_id": 6}, CheckpointError, "the last token is 5"),
        ({"tokenizer.ggml.add_bos_token": 1}, CheckpointError, "must be true or false"),
        ({"tokenizer.chat_template": 3}, CheckpointError, "must be a string"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, changes, error: type[ModelError], message) -> None:
    assert gguf
    with pytest.raises(error, match=message):
        Tokenizer.load(write(tmp_path, SMALL | changes))
