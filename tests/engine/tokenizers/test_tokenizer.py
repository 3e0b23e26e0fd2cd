"""Reading tokenizer files of every spelling, and text to ids and back."""

import json

import pytest

from engine.errors import RequestError
from engine.tokenizers.detokenizer import byte_letters
from engine.tokenizers.tokenizer import Tokenizer
from models.errors import CheckpointError, UnsupportedError
from tests.engine.tokenizers_small import (
    byte_level_backend,
    load,
    load_real,
    save,
    sentencepiece_backend,
)

_VECTORS = {"gpt2": "gpt-2", "qwen2.5": "qwen2", "phi-3": "phi-3"}
_BETWEEN = "\n__ggml_vocab_test__\n"
_TEMPLATE = "{{ messages[0].content }}"


@pytest.fixture
def folder(tmp_path):
    return save(byte_level_backend(), tmp_path)


def _write(folder, name, value):
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))


def _gpt2_files(folder, **config):
    letters = [*byte_letters().values(), "ll", "<|endoftext|>"]
    _write(folder, "vocab.json", {token: place for place, token in enumerate(letters)})
    _write(folder, "merges.txt", "#version: 0.2\nl l\n")
    if config:
        _write(folder, "tokenizer_config.json", config)
    return folder


def test_a_folder_without_tokenizer_has_none(tmp_path):
    assert Tokenizer.load(tmp_path) is None


def test_text_to_ids_and_back(folder):
    tokenizer = load(folder)
    assert tokenizer.decode(tokenizer.encode("Hello wörld 😀")) == "Hello wörld 😀"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer.special_ids == {0, 1}
    assert not tokenizer.chat_templates


def test_special_names_in_a_text_are_tokens_or_where_marked_text(folder):
    tokenizer = load(folder)
    assert tokenizer.encode("a</s>")[-1] == tokenizer.eos_token_id
    literal = tokenizer.encode(tokenizer.guard.marked("a</s>"), marked=True)
    assert tokenizer.eos_token_id not in literal
    assert tokenizer.decode(literal) == "a</s>"


def test_decode_leaves_special_tokens_out_unless_asked(folder):
    tokenizer = load(folder)
    ids = tokenizer.encode("<s>a</s>")
    assert tokenizer.decode(ids) == "a"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<s>a</s>"


def test_tokens_show_their_text_and_bytes(tmp_path):
    tokenizer = load(save(sentencepiece_backend(), tmp_path))
    word, byte = tokenizer.token_id("▁w"), tokenizer.token_id("<0xE2>")
    assert (tokenizer.token_text(word), tokenizer.token_bytes(word)) == (" w", b" w")
    assert (tokenizer.token_text(byte), tokenizer.token_bytes(byte)) == ("\ufffd", b"\xe2")
    assert tokenizer.token_text(10**6) == tokenizer.token_text(-1) == ""


def test_max_chars_bounds_every_text_that_fits(folder):
    tokenizer = load(folder)
    for text in ("<a b>" * 7, "ll" * 9, "é€😀", "Hello world"):
        assert len(text) <= tokenizer.max_chars(len(tokenizer.encode(text)))


def test_a_lone_surrogate_is_the_requests_fault(folder):
    with pytest.raises(RequestError, match="surrogate"):
        load(folder).encode("a\ud800b")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"add_bos_token": True}, [0, "a"]),
        ({"add_bos_token": False}, ["a"]),
        ({"add_bos_token": True, "add_eos_token": True}, [0, "a", 1]),
    ],
)
def test_bos_and_eos_go_around_a_text_as_the_config_says(tmp_path, flags, expected):
    tokenizer = load(save(byte_level_backend(), tmp_path, **flags))
    a = tokenizer.token_id("a")
    assert tokenizer.encode("a") == [a if item == "a" else item for item in expected]
    assert tokenizer.encode("a", add_special_tokens=False) == [a]


def test_special_tokens_are_strings_or_objects_and_may_lie_in_the_map(tmp_path):
    folder = save(byte_level_backend(), tmp_path, bos_token=None, eos_token={"content": "</s>"})
    _write(folder, "tokenizer_config.json", {"eos_token": {"content": "</s>"}})
    _write(folder, "special_tokens_map.json", {"bos_token": "<s>", "eos_token": "<a b>"})
    assert load(folder).special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (_TEMPLATE, {"default": _TEMPLATE}),
        ([{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}],
         {"default": "a", "tool_use": "b"}),
    ],
)  # fmt: skip
def test_chat_templates_are_one_or_named(tmp_path, value, expected):
    tokenizer = load(save(byte_level_backend(), tmp_path, chat_template=value))
    assert tokenizer.chat_templates == expected


def test_chat_template_files_go_before_the_config(tmp_path):
    folder = save(byte_level_backend(), tmp_path, chat_template="old")
    _write(folder, "chat_template.jinja", "new")
    (folder / "additional_chat_templates").mkdir()
    _write(folder / "additional_chat_templates", "tool_use.jinja", "tools")
    assert load(folder).chat_templates == {"default": "new", "tool_use": "tools"}


def test_vocabulary_and_merges_are_enough(tmp_path):
    tokenizer = load(_gpt2_files(tmp_path))
    assert tokenizer.encode("ll") == [256]
    assert tokenizer.decode(tokenizer.encode("all wéll ")) == "all wéll "
    assert tokenizer.eos_token_id == 257
    assert tokenizer.encode("<|endoftext|>") == [257]


def test_added_tokens_get_the_ids_of_their_files(tmp_path):
    entry = {"content": "<|im_end|>", "special": True, "normalized": False}
    _gpt2_files(
        tmp_path,
        tokenizer_class="Qwen2Tokenizer",
        eos_token="<|im_end|>",
        added_tokens_decoder={"257": {"content": "<|endoftext|>", "special": True}, "258": entry},
    )
    _write(tmp_path, "added_tokens.json", {"<tool_call>": 259})
    tokenizer = load(tmp_path)
    assert tokenizer.encode("<|im_end|><tool_call>") == [258, 259]
    assert tokenizer.eos_token_id == 258 and tokenizer.special_ids == {257, 258}
    assert tokenizer.vocab_size == 260


def test_an_unknown_way_to_split_words_is_refused(tmp_path):
    _gpt2_files(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(UnsupportedError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'),
        ("tokenizer_config.json", "[1]"),
        ("tokenizer_config.json", '{"a": ' * 100_000),
        ("tokenizer_config.json", {"eos_token": 3}),
        ("tokenizer_config.json", {"eos_token": "<absent>"}),
        ("tokenizer_config.json", {"chat_template": 3}),
        ("tokenizer_config.json", {"chat_template": [{"name": "default"}]}),
        ("tokenizer_config.json", {"added_tokens_decoder": []}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": {}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9999": {"content": "<new>"}}}),
        ("added_tokens.json", {"<new>": "many"}),
    ],
)
def test_malformed_files_are_named_in_one_sentence(folder, name, content):
    _write(folder, name, content)
    with pytest.raises(CheckpointError) as caught:
        Tokenizer.load(folder)
    assert str(folder) in str(caught.value) or "tokenizer_config.json" in str(caught.value)


def test_text_that_is_not_utf8_is_a_checkpoint_error(folder):
    (folder / "tokenizer_config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointError, match="UTF-8"):
        Tokenizer.load(folder)


@pytest.mark.parametrize("name", _VECTORS)
def test_ids_of_well_known_tokenizers(shared_data, name):
    tokenizer = load_real(shared_data, f"tokenizers/{name}")
    vectors = shared_data / "tokenizers" / "vectors"
    texts = (vectors / f"ggml-vocab-{_VECTORS[name]}.gguf.inp").read_text(encoding="utf-8")
    expected = (vectors / f"ggml-vocab-{_VECTORS[name]}.gguf.out").read_text().splitlines()
    pairs = list(zip(texts.split(_BETWEEN), expected, strict=False))
    assert len(pairs) > 40
    for text, ids in pairs:
        assert tokenizer.encode(text, add_special_tokens=False) == [int(i) for i in ids.split()]


@pytest.mark.parametrize("name", ["stories260K", "babyllama105"])
def test_prompts_of_trained_models_have_the_ids_they_were_run_with(shared_data, name):
    tokenizer = load_real(shared_data, f"weights/{name}")
    golden = json.loads((shared_data / "weights" / name / "golden_greedy.json").read_text())
    for case in golden if isinstance(golden, list) else [golden]:
        assert tokenizer.encode(case["prompt"]) == case["prompt_ids"]


@pytest.mark.parametrize("unit", ["a", " ", "👨‍👩‍👧", "\u0301"])
def test_one_endless_word_is_encoded_whole(shared_data, unit):
    tokenizer = load_real(shared_data, "tokenizers/qwen2.5")
    text = unit * 20_000
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text and len(text) <= tokenizer.max_chars(len(ids))
