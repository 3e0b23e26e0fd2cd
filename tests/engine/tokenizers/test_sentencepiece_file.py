"""SentencePiece's model files: the ids and texts of the package that trained them."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tokenizers.protobuf import read_fields
from engine.tokenizers.tokenizer import Tokenizer
from models.errors import CheckpointError, ModelError, UnsupportedError
from tests.conftest import REPOSITORY
from tests.engine.nasty_texts import NASTY
from tests.engine.tokenizers.test_gguf_tokenizer import compare_with_vectors
from tests.engine.tokenizers_small import load

LLAMA = {
    "model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True, "split_digits": True,
}  # fmt: skip
GEMMA = LLAMA | {
    "add_dummy_prefix": False,
    "user_defined_symbols": ["<table>", "▁▁", "▁▁▁▁", "\n\n"],
    "control_symbols": ["<turn>"],
}
T5: dict[str, Any] = {"model_type": "unigram", "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
UNIGRAM = T5 | {
    "byte_fallback": True, "split_by_whitespace": False, "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False, "vocab_size": 900,
}  # fmt: skip
XLMR = {"model_type": "unigram", "unk_id": 0, "bos_id": 1, "eos_id": 2}


def train(**options: Any) -> bytes:
    sentencepiece = pytest.importorskip("sentencepiece")
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    lines = [*text.splitlines(), "日本語のテキスト café naïve"] * 2
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, minloglevel=2, num_threads=1,
        hard_vocab_limit=False, **{"vocab_size": 700} | options,
    )  # fmt: skip
    return written.getvalue()


def write(folder: Path, model: bytes, name: str = "tokenizer.model", **config: Any) -> Path:
    (folder / name).write_bytes(model)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def reference(model: bytes) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module")
def llama() -> bytes:
    return train(**LLAMA)


def plain(text: str) -> str:
    """Without what is a special token here, and letters to SentencePiece."""
    return text.replace("<s>", "").replace("</s>", "").replace("<unk>", "")


@pytest.mark.parametrize("options", [LLAMA, GEMMA, T5, UNIGRAM])
def test_ids_and_texts_are_sentencepieces(tmp_path: Path, options: dict[str, Any]) -> None:
    model = train(**options)
    ours, theirs = load(write(tmp_path, model)), reference(model)
    whole = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    # the package sums scores in float32: of 12,579 tokens it took "e", "ad" (-13.1610) for the
    # likelier "ea", "d" (-13.1572), where the sum so far had 1/128 as its last place
    several = whole[:1500]
    for text in map(plain, (*NASTY, several, *whole.splitlines())):
        ids = ours.encode(text, add_special_tokens=False)
        assert ids == theirs.encode(text), text
        if theirs.unk_id() not in ids:  # which the package writes as " ⁇ "
            assert ours.decode(ids) == theirs.decode(ids), text


def sized(key: int, data: bytes) -> bytes:
    """A field of bytes, under 2**14 of them."""
    size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
    return bytes([key << 3 | 2]) + size + data


def test_well_known_pieces_give_the_recorded_ids(shared_data: Path, tmp_path: Path) -> None:
    """Phi-3's, which are Llama 2's; its tokenizer.json has merges in the order of their scores."""
    source = shared_data / "tokenizers" / "phi-3" / "tokenizer.json"
    known = json.loads(source.read_text(encoding="utf-8"))["model"]
    ranks = {"".join(merge.split(" ") if isinstance(merge, str) else merge): rank
             for rank, merge in reversed(list(enumerate(known["merges"])))}  # fmt: skip
    model = b""
    for piece, place in sorted(known["vocab"].items(), key=lambda item: item[1]):
        kind = 2 if place == 0 else 3 if place < 3 else 6 if place < 259 else 1
        score = b"\x15" + struct.pack("<f", -ranks.get(piece, 10**6))
        model += sized(1, sized(1, piece.encode()) + score + bytes([0x18, kind]))
    trainer = b"\x18\x02" + b"\x98\x02\x01"  # BPE, bytes for letters that are no pieces
    model += sized(2, trainer) + sized(3, b"\x20\x00")  # spaces stay as many as they are
    compare_with_vectors(load(write(tmp_path, model)), shared_data, "phi-3")


def test_special_tokens_are_found_in_a_text_and_go_around_it(tmp_path: Path, llama: bytes) -> None:
    tokenizer = load(write(tmp_path, llama))
    assert tokenizer.special_tokens == {
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    ids = tokenizer.encode("one</s><s>two")
    assert ids[0] == 1 and ids.count(1) == 2 and ids.count(2) == 1
    written = tokenizer.guard.marked("x</s>")
    assert tokenizer.encode(written, marked=True).count(2) == 0
    (tmp_path / "tokenizer_config.json").write_text('{"add_bos_token": false, "eos_token": "<s>"}')
    other = load(tmp_path)
    assert other.encode("one")[0] != 1 and other.eos_token_id == 1


def test_a_space_goes_before_every_text_or_the_first_as_legacy_says(
    tmp_path: Path, llama: bytes
) -> None:
    old = load(write(tmp_path, llama, tokenizer_class="LlamaTokenizerFast"))
    new = load(write(tmp_path, llama, tokenizer_class="LlamaTokenizer", legacy=False))
    assert old.encode("a")[1:] == new.encode("a")[1:] == reference(llama).encode("a")
    assert old.decode(old.encode("a<s>a"), skip_special_tokens=False) == "<s> a<s> a"
    assert new.decode(new.encode("a<s>a"), skip_special_tokens=False) == "<s> a<s>a"


def test_t5_has_sentinels_behind_its_pieces(tmp_path: Path) -> None:
    model = train(**T5)
    size = reference(model).get_piece_size()
    tokenizer = load(write(tmp_path, model, "spiece.model", tokenizer_class="T5Tokenizer"))
    assert tokenizer.vocab_size == size + 100
    assert tokenizer.encode("<extra_id_0>a<extra_id_99>")[::2] == [size + 99, size]
    assert tokenizer.encode("")[-1] == tokenizer.eos_token_id == 1


def test_xlm_r_moves_ids_by_one(tmp_path: Path) -> None:
    model = train(**XLMR)
    config = {"tokenizer_class": "XLMRobertaTokenizer"}
    tokenizer = load(write(tmp_path, model, "sentencepiece.bpe.model", **config))
    theirs = reference(model)
    pieces = [one + 1 if one > 2 else 3 for one in theirs.encode("the kernel 日本")]
    assert tokenizer.encode("the kernel 日本") == [0, *pieces, 2]
    assert tokenizer.token_id("<mask>") == theirs.get_piece_size() + 1
    ids, types = tokenizer.encode_pair("the", "the")
    the = [one + 1 for one in theirs.encode("the")]
    assert ids == [0, *the, 2, 2, *the, 2] and len(types) == len(ids)


def test_chatglm_has_its_tokens_behind_the_pieces(tmp_path: Path, llama: bytes) -> None:
    tokenizer = load(write(tmp_path, llama, tokenizer_class="ChatGLMTokenizer"))
    size = reference(llama).get_piece_size()
    the = reference(llama).encode("soprano")
    assert tokenizer.encode("[gMASK]sop<|user|>soprano", add_special_tokens=False) == [
        size + 1, size + 3, size + 6, *the,
    ]  # fmt: skip
    assert tokenizer.encode("soprano") == [size + 1, size + 3, *the]
    assert tokenizer.eos_token_id == 2


def test_a_piece_is_called_as_the_folder_calls_it(tmp_path: Path) -> None:
    model = train(**LLAMA, user_defined_symbols=["[UNUSED_TOKEN_146]"])
    place = reference(model).piece_to_id("[UNUSED_TOKEN_146]")
    added = {str(place): {"content": "<|im_start|>", "special": True}}
    config = {"tokenizer_class": "InternLM2Tokenizer", "added_tokens_decoder": added}
    tokenizer = load(write(tmp_path, model, **config))
    assert tokenizer.encode("<|im_start|>")[1:] == [place] and place in tokenizer.special_ids
    assert tokenizer.token_id("[UNUSED_TOKEN_146]") is None


@pytest.mark.parametrize(
    ("change", "config", "error", "message"),
    [
        (lambda model: model[:9], {}, CheckpointError, "goes on after the end"),
        (lambda model: b"", {}, CheckpointError, "has no pieces"),
        (lambda model: model[:20] + model, {}, CheckpointError, "is not a SentencePiece model"),
        (lambda model: model + model[: 2 + model[1]], {}, CheckpointError, "one of them twice"),
        (lambda model: model + b"\x12\x04\xc0\x02\xff\x7f", {},
         CheckpointError, "no piece for what is unknown"),
        (lambda model: b"\x80" * 99, {}, CheckpointError, "a number does not end"),
        (lambda model: b"version https://git-lfs", {}, CheckpointError, "is not a SentencePiece"),
        (lambda model: model + b"\x12\x02\x18\x03", {}, UnsupportedError, "of words or letters"),
        (lambda model: model, {"tokenizer_class": "CamembertTokenizer"}, UnsupportedError,
         "How a CamembertTokenizer numbers the pieces"),
        (lambda model: model, {"tokenizer_class": "T5Tokenizer", "extra_ids": -1}, CheckpointError,
         "extra_ids"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    tmp_path: Path, llama: bytes, change: Any, config: Any, error: type[ModelError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Tokenizer.load(write(tmp_path, change(llama), **config))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    try:
        fields = list(read_fields(data))
    except ValueError:
        return
    assert all(number >= 0 and isinstance(value, int | bytes) for number, value in fields)
