"""Files of tiktoken: the ids of the package, and of recorded vectors."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from engine.tokenizers.detokenizer import byte_letters
from engine.tokenizers.gguf_words import TEKKEN_WORDS
from engine.tokenizers.tiktoken_families import FAMILIES
from engine.tokenizers.tokenizer import Tokenizer
from models.errors import CheckpointError, ModelError, UnsupportedError
from tests.conftest import REPOSITORY
from tests.engine.nasty_texts import NASTY
from tests.engine.tokenizers.test_gguf_tokenizer import compare_with_vectors
from tests.engine.tokenizers_small import load

CLASSES = {
    "qwen": ("qwen.tiktoken", "QWenTokenizer"),
    "hunyuan": ("hy.tiktoken", None),
    "kimi": ("tiktoken.model", "TikTokenTokenizer"),
    "glm4": ("tokenizer.model", "ChatGLM4Tokenizer"),
    "cl100k": ("cl100k_base.tiktoken", None),
    "o200k": ("o200k_base.tiktoken", None),
}


BYTES = {letter: byte for byte, letter in byte_letters().items()}


def to_bytes(name: str) -> bytes:
    return bytes(BYTES[letter] for letter in name)


@pytest.fixture(scope="module")
def tokens() -> list[bytes]:
    """256 bytes, and what is frequent in a text, by rank."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters = [byte_letters()[byte] for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=letters, show_progress=False)
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    runs = [letter * 40 for letter in "a =-"]
    backend.train_from_iterator([*text.splitlines(), *runs, *NASTY], trainer)
    ids = backend.get_vocab()
    return [to_bytes(name) for name in sorted(ids, key=ids.__getitem__)]


def write(folder: Path, tokens: list[bytes], file: str, **config: Any) -> Path:
    lines = [f"{b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    (folder / file).write_text("".join(lines))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", CLASSES)
def test_ids_are_tiktokens(tmp_path: Path, tokens: list[bytes], name: str) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    file, kind = CLASSES[name]
    tokenizer = load(write(tmp_path, tokens, file, tokenizer_class=kind))
    family = FAMILIES[name]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    [pattern] = family.words.patterns
    theirs = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    whole = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for text in (*NASTY, whole):
        ids = tokenizer.encode(text, add_special_tokens=False)
        text = normalize("NFC", text) if family.words.composed else text
        assert ids == theirs.encode_ordinary(text), text
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("folder", "vectors", "file", "kind"),
    [("qwen2.5", "qwen2", "qwen.tiktoken", "QWenTokenizer"),
     ("llama3.2", "llama-bpe", "tokenizer.model", None)],
)  # fmt: skip
def test_well_known_ranks_give_the_recorded_ids(
    shared_data: Path, tmp_path: Path, folder: str, vectors: str, file: str, kind: str | None
) -> None:
    source = shared_data / "tokenizers" / folder
    ids = json.loads((source / "vocab.json").read_text(encoding="utf-8"))
    tokens = [to_bytes(name) for name in sorted(ids, key=ids.__getitem__)]
    tokenizer = load(write(tmp_path, tokens, file, tokenizer_class=kind))
    compare_with_vectors(tokenizer, shared_data, vectors)
    if file == "tokenizer.model":
        named = json.loads((source / "tokenizer_config.json").read_text())["added_tokens_decoder"]
        assert {entry["content"]: int(one) for one, entry in named.items()} == (
            tokenizer.special_token_ids
        )
        assert tokenizer.encode("a<|eot_id|>") == [128000, 64, 128009]
        assert tokenizer.eos_token_id == 128001


def test_a_word_that_is_a_token_is_that_token(tmp_path: Path, tokens: list[bytes]) -> None:
    """Though no two tokens make it, as within a longer word they do not."""
    tokenizer = load(write(tmp_path, [*tokens, b"zqzq"], "qwen.tiktoken"))
    assert tokenizer.encode("zqzq") == [len(tokens)]
    assert len(tokenizer.encode("zqzqz")) > 3


def test_special_tokens_are_those_of_the_family_and_of_the_folder(
    tmp_path: Path, tokens: list[bytes]
) -> None:
    first = len(tokens)
    entry = {"content": "<|im_end|>", "special": True}
    tokenizer = load(
        write(
            tmp_path, tokens, "tiktoken.model", tokenizer_class="TikTokenTokenizer",
            eos_token="<|im_end|>", added_tokens_decoder={str(first + 2): entry},
        )
    )  # fmt: skip
    assert tokenizer.encode(f"a<|im_end|><|reserved_token_{first + 5}|>")[1:] == [
        first + 2, first + 5,
    ]  # fmt: skip
    assert (tokenizer.eos_token_id, tokenizer.vocab_size) == (first + 2, first + 256)


def test_glm_4_begins_every_text_with_two_tokens(tmp_path: Path, tokens: list[bytes]) -> None:
    first = len(tokens)
    names = ("[gMASK]", "<sop>")
    added = {str(first + n): {"content": name, "special": True} for n, name in enumerate(names)}
    config = {"tokenizer_class": "ChatGLM4Tokenizer", "added_tokens_decoder": added}
    tokenizer = load(write(tmp_path, tokens, "tokenizer.model", **config))
    assert tokenizer.encode("a") == [first, first + 1, tokenizer.token_id("a")]


@pytest.mark.parametrize(
    ("file", "content", "error", "message"),
    [
        ("new.tiktoken", None, UnsupportedError, "does not say how its model splits words"),
        ("qwen.tiktoken", b"IQ==", CheckpointError, "not a token and its rank"),
        ("qwen.tiktoken", b"IQ== 1\n", CheckpointError, "its ranks are not 0, 1, 2"),
        ("qwen.tiktoken", b"IQ== 0\nIQ== 1\n", CheckpointError, "its ranks are not"),
        ("qwen.tiktoken", b"IQ== 0\n", CheckpointError, "the byte 0 is no token"),
        ("qwen.tiktoken", b"!!!! 0\n", CheckpointError, "is no file of tiktoken"),
        ("qwen.tiktoken", b"", CheckpointError, "the byte 0 is no token"),
        ("tekken.json", b"{}", CheckpointError, "is no tekken file: it has no 'config'"),
        (
            "tekken.json",
            b'{"config": {"default_num_special_tokens": -1}}',
            CheckpointError,
            "it cannot have -1 special tokens",
        ),
        ("tokenizer.model.v3", b"?", UnsupportedError, "kind of tokenizer that is not read"),
        ("vocab.json", b"{}", UnsupportedError, "save the tokenizer as tokenizer.json"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, tokens: list[bytes], file: str, content: bytes | None,
    error: type[ModelError], message: str,
) -> None:  # fmt: skip
    if content is None:
        write(tmp_path, tokens, file)
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(error, match=message):
        Tokenizer.load(tmp_path)


def test_an_id_far_beyond_the_ranks_is_refused(tmp_path: Path, tokens: list[bytes]) -> None:
    added = {"9999999": {"content": "<far>"}}
    write(tmp_path, tokens, "qwen.tiktoken", added_tokens_decoder=added)
    with pytest.raises(CheckpointError, match="names token 9999999"):
        Tokenizer.load(tmp_path)


def test_mistrals_file_says_everything_itself(tmp_path: Path, tokens: list[bytes]) -> None:
    tiktoken = pytest.importorskip("tiktoken")
    vocab = [
        {"rank": rank, "token_bytes": b64encode(token).decode(), "token_str": None}
        for rank, token in enumerate(tokens)
    ]
    size = len(tokens) - 7  # the file has more than are in use
    config = {
        "pattern": TEKKEN_WORDS, "default_vocab_size": size + 100,
        "default_num_special_tokens": 100,
    }  # fmt: skip
    (tmp_path / "tekken.json").write_text(json.dumps({"config": config, "vocab": vocab}))
    tokenizer = load(tmp_path)
    ranks = {token: rank for rank, token in enumerate(tokens[:size])}
    theirs = tiktoken.Encoding(
        "tekken", pat_str=TEKKEN_WORDS, mergeable_ranks=ranks, special_tokens={}
    )
    for text in NASTY:
        ids = tokenizer.encode(tokenizer.guard.marked(text), marked=True)
        assert ids == [1, *(one + 100 for one in theirs.encode_ordinary(text))], text
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode("a[INST]<SPECIAL_99>")[2:] == [3, 99]
    named = [{"rank": 0, "token_str": "<unk>"}, {"rank": 1, "token_str": "<s>"},
             {"rank": 2, "token_str": "</s>"}, {"rank": 3, "token_str": "[THINK]"}]  # fmt: skip
    said = {"config": config, "vocab": vocab, "special_tokens": named}
    (tmp_path / "tekken.json").write_text(json.dumps(said))
    assert load(tmp_path).encode("[THINK]") == [1, 3]
