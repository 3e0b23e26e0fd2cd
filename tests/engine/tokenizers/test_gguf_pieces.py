"""WordPiece and unigram vocabularies of GGUF files: the ids of the files they were made of."""

from pathlib import Path
from typing import Any

import pytest

from engine.tokenizers.tokenizer import Tokenizer
from models.errors import CheckpointError
from tests.engine.nasty_texts import NASTY
from tests.engine.tokenizers.test_sentencepiece_file import T5, XLMR, reference, train
from tests.engine.tokenizers.test_sentencepiece_file import write as write_model
from tests.engine.tokenizers.test_wordpiece_file import LINES
from tests.engine.tokenizers.test_wordpiece_file import write as write_lines
from tests.engine.tokenizers_small import load
from tests.models.gguf.files import add, gguf, write_gguf

CONTROLS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [*(line for line in LINES if line != "Un"), "#", "##[", "[unused1]"]


def phantom(line: str) -> str:
    """llama.cpp's converter."""
    if line in CONTROLS:
        return line
    return line[2:] if line.startswith("##") else f"▁{line}"


def bert(folder: Path, lines: list[str] = WORDS, **more: Any) -> Tokenizer:
    keys = {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": [phantom(line) for line in lines],
        "tokenizer.ggml.token_type": [3 if line in CONTROLS else 1 for line in lines],
    }
    return load(write_gguf(folder / "a.gguf", "bert", keys | more, {}))


def test_pieces_are_those_of_vocab_txt(tmp_path: Path) -> None:
    found, expected = bert(tmp_path), load(write_lines(tmp_path, WORDS))
    texts = (*NASTY, "Unaffable!", "CAFÉ caféing", "日本 unx [MASK]#", "un[unused1]")
    for text in texts:
        assert found.encode(text) == expected.encode(text), text
        assert found.decode(found.encode(text)) == expected.decode(expected.encode(text))
    assert found.encode_pair("ing", "un") == expected.encode_pair("ing", "un")
    assert found.special_ids == expected.special_ids
    assert found.token_text(8) == expected.token_text(8) == "aff"


@pytest.mark.parametrize(
    ("keys", "settings"),
    [
        ({"lowercase": False}, {"do_lower_case": False}),
        ({"lowercase": True, "strip_accents": False}, {"strip_accents": False}),
        ({"lowercase": True}, {}),
    ],
)
def test_letters_are_left_as_they_are_where_the_file_says_so(
    tmp_path: Path, keys: dict[str, bool], settings: dict[str, Any]
) -> None:
    said = {f"tokenizer.ggml.normalizer.{key}": value for key, value in keys.items()}
    found, expected = bert(tmp_path, LINES, **said), load(write_lines(tmp_path, LINES, **settings))
    assert found.encode("Un café CAFÉ") == expected.encode("Un café CAFÉ")


def test_capitals_in_the_vocabulary_mean_that_texts_keep_theirs(tmp_path: Path) -> None:
    assert bert(tmp_path, LINES).encode("Un")[1] == LINES.index("Un")
    many = [*LINES, *(f"w{number}" for number in range(200))]  # of which one is no share
    assert bert(tmp_path, many).encode("Un")[1] == LINES.index("un")


def test_what_begins_and_ends_a_text_may_have_other_names(tmp_path: Path) -> None:
    lines = [{"[CLS]": "<s>", "[SEP]": "</s>"}.get(line, line) for line in WORDS]
    keys = {"tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.seperator_token_id": 3}
    assert bert(tmp_path, lines, **keys).encode("un") == [2, 7, 3]
    with pytest.raises(CheckpointError, match=r"has no \[SEP\] in its vocabulary"):
        bert(tmp_path, lines, **{"tokenizer.ggml.bos_token_id": 2})


def unigram(folder: Path, model: bytes, xlmr: bool = False, **more: Any) -> Path:
    """What llama.cpp's converter makes of a SentencePiece model."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    said = proto.ModelProto()
    said.ParseFromString(model)
    tokens = [piece.piece for piece in said.pieces]
    scores = [float(piece.score) for piece in said.pieces]
    types = [int(piece.type) for piece in said.pieces]
    ids = {"eos": 1, "unknown": 2, "padding": 0}
    if xlmr:
        tokens = ["<s>", "<pad>", "</s>", "<unk>", *tokens[3:], "<mask>"]
        scores, types = [0.0] * 4 + scores[3:] + [0.0], [3, 3, 3, 2, *types[3:], 3]
        ids = {"bos": 0, "eos": 2, "unknown": 3, "padding": 1, "mask": len(tokens) - 1}
        more = {"add_bos_token": True, "add_eos_token": True} | more
    else:
        tokens, scores, types = [*tokens, "[PAD9]"], [*scores, -10000.0], [*types, 5]
    normalizer = said.normalizer_spec
    keys = {
        "model": "t5", "tokens": tokens, "scores": scores, "token_type": types,
        "add_space_prefix": bool(normalizer.add_dummy_prefix),
        "remove_extra_whitespaces": bool(normalizer.remove_extra_whitespaces),
        "precompiled_charsmap": normalizer.precompiled_charsmap,
        **{f"{role}_token_id": one for role, one in ids.items()},
    }  # fmt: skip
    writer = gguf.GGUFWriter(folder / "a.gguf", "t5")
    for key, value in (keys | more).items():
        named = f"tokenizer.ggml.{key}"
        if isinstance(value, bytes):
            writer.add_array(named, value)
        else:
            add(writer, named, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return folder / "a.gguf"


@pytest.fixture(scope="module")
def spiece() -> bytes:
    return train(**T5)


def test_a_t5s_ids_are_those_of_its_own_model(tmp_path: Path, spiece: bytes) -> None:
    found = load(unigram(tmp_path, spiece))
    expected = load(write_model(tmp_path, spiece, "spiece.model", tokenizer_class="T5Tokenizer",
                                extra_ids=0))  # fmt: skip
    theirs = reference(spiece)
    for text in (*NASTY, "a[PAD9]b", "a</s> b<pad>"):
        ids = found.encode(text)
        assert ids == expected.encode(text), text
        if "<" not in text:
            assert ids[:-1] == theirs.encode(text)
            assert found.decode(ids) == expected.decode(ids)
    assert found.encode_pair("a", "b")[0] == [*found.encode("a"), *found.encode("b")]
    assert found.special_tokens["eos_token"] == "</s>" and found.special_ids == {0, 1, 2}


def test_an_xlm_rs_ids_are_those_of_its_own_model(tmp_path: Path) -> None:
    model = train(**XLMR)
    found = load(unigram(tmp_path, model, xlmr=True))
    name, kind = "sentencepiece.bpe.model", "XLMRobertaTokenizer"
    expected = load(write_model(tmp_path, model, name, tokenizer_class=kind))
    for text in (*NASTY, "a <mask> b<mask>"):
        assert found.encode(text) == expected.encode(text), text
    assert found.encode_pair("a", "b") == expected.encode_pair("a", "b")
    assert found.special_tokens["mask_token"] == "<mask>"


@pytest.mark.parametrize(("pre", "between"), [("roberta-bpe", 2), ("modern-bert", 1)])
def test_what_goes_between_two_texts_follows_from_the_words(
    tmp_path: Path, pre: str, between: int
) -> None:
    keys = {
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.tokens": ["<s>", "</s>", "a", "b", "ab", "<mask>", "Ġ"],
        "tokenizer.ggml.token_type": [3, 3, 1, 1, 1, 3, 1],
        "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.mask_token_id": 5,
    }  # fmt: skip
    found = load(write_gguf(tmp_path / "a.gguf", "bert", keys, {}))
    assert found.encode("a <mask>") == [0, 2, 5, 1]
    assert found.encode_pair("ab", "b")[0] == [0, 4, *[1] * between, 3, 1]


def test_numbers_and_tables_that_cannot_be_are_refused(tmp_path: Path, spiece: bytes) -> None:
    for more, message in (
        ({"precompiled_charsmap": [1, 2, 3, 4]}, "must be a table of bytes"),
        ({"precompiled_charsmap": b"\x08\0\0\0abcdefgh"}, "does not hold a vocabulary"),
        ({"scores": [float("nan")] * 5}, "must be .* numbers, one for each token"),
        ({"unknown_token_id": 90_000}, "the last token is"),
    ):
        with pytest.raises(CheckpointError, match=message):
            Tokenizer.load(unigram(tmp_path, spiece, **more))
