"""Texts grow, never hold half a character, and add up to what `tokenizers` decodes."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from engine.tokenizers.detokenizer import Detokenizer, Pieces, decode
from models.errors import UnsupportedError
from tests.engine.tokenizers_small import (
    REAL,
    SMALL,
    byte_level_backend,
    load_real,
    metaspace_backend,
    sentencepiece_backend,
)

untimed = settings(deadline=None, derandomize=True)
_BACKENDS = {name: make() for name, make in SMALL.items()}
_PIECES = {name: Pieces(backend, frozenset({0, 1})) for name, backend in _BACKENDS.items()}
_BYTE = re.compile(r"<0x..>")


def _ids(size):
    """Ids of a vocabulary, and some that it does not have."""
    return st.lists(st.integers(0, size + 1), max_size=40)


def _grown(pieces, prompt, ids, skip):
    state = Detokenizer(pieces, prompt, skip_special_tokens=skip)
    return "".join([*(state.append([token]) for token in ids), state.flush()])


def _reference(backend, ids, skip):
    """What `tokenizers` decodes; None where a run of byte tokens mixes good and broken bytes."""
    run = b""
    for token in [*ids, None]:
        name = None if token is None else backend.id_to_token(token)
        if name is None and token is not None:
            continue
        if skip and token in (0, 1):
            continue
        if name is not None and _BYTE.fullmatch(name):
            run += bytes.fromhex(name[3:5])
            continue
        text = run.decode("utf-8", "replace")
        if "\ufffd" in text and text.strip("\ufffd"):
            return None
        run = b""
    return backend.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("name", SMALL)
@untimed
@given(data=st.data(), skip=st.booleans())
def test_pieces_add_up_to_what_tokenizers_decodes(name, data, skip):
    backend = _BACKENDS[name]
    ids = data.draw(_ids(backend.get_vocab_size()))
    expected = _reference(backend, ids, skip)
    whole = decode(_PIECES[name], ids, skip_special_tokens=skip)
    assert _grown(_PIECES[name], [], ids, skip) == whole
    assert expected is None or whole == expected


@pytest.mark.parametrize("name", SMALL)
@untimed
@given(data=st.data(), cut=st.integers(0, 40))
def test_text_after_a_prompt_is_the_whole_without_the_prompt(name, data, cut):
    ids = data.draw(_ids(_BACKENDS[name].get_vocab_size()))
    prompt, output = ids[:cut], ids[cut:]
    state = Detokenizer(_PIECES[name], skip_special_tokens=True)
    before = state.append(prompt)
    after = state.append(output) + state.flush()
    assert before + after == decode(_PIECES[name], ids)
    assert _grown(_PIECES[name], prompt, output, True) == after


@untimed
@given(text=st.text(max_size=30))
def test_any_text_survives_byte_level_and_byte_fallback(text):
    for name in ("byte_level", "sentencepiece"):
        backend, pieces = _BACKENDS[name], _PIECES[name]
        if any(special in text for special in ("<s>", "</s>", "<a b>", "▁")):
            return
        assert _grown(pieces, [], backend.encode(text).ids, True) == text


@untimed
@given(data=st.data())
def test_a_replacement_mark_is_never_taken_back(data):
    backend, pieces = _BACKENDS["byte_level"], _PIECES["byte_level"]
    ids = data.draw(_ids(backend.get_vocab_size()))
    texts = [decode(pieces, ids[:end]).rstrip("\ufffd") for end in range(len(ids) + 1)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    state = Detokenizer(pieces)
    grown = ""
    for token in ids:
        grown += state.append([token])
        assert decode(pieces, ids).startswith(grown)


def test_a_character_waits_for_its_last_byte():
    backend = byte_level_backend()
    state = Detokenizer(Pieces(backend, frozenset()))
    pieces = [state.append([token]) for token in backend.encode("a😀").ids]
    assert pieces[0] == "a" and pieces[-1] == "😀" and set(pieces[1:-1]) <= {""}


def test_a_broken_byte_is_marked_as_soon_as_it_is_known_to_be_broken():
    backend = byte_level_backend()
    ids = [backend.token_to_id(letter) for letter in ("ð", "a")]  # 0xF0 begins a character
    state = Detokenizer(Pieces(backend, frozenset()))
    assert [state.append([token]) for token in ids] == ["", "\ufffda"]


def test_a_good_character_survives_a_broken_byte_after_it():
    backend = sentencepiece_backend()
    ids = [backend.token_to_id(f"<0x{byte:02X}>") for byte in b"\xe2\x82\xac\xff"]
    assert decode(Pieces(backend, frozenset()), ids) == "€\ufffd"


def test_an_unfinished_prompt_character_is_given_whole():
    backend = byte_level_backend()
    *prompt, last = (backend.token_to_id(letter) for letter in ("ð", "Ł", "ĺ", "Ģ"))
    assert Detokenizer(Pieces(backend, frozenset()), prompt).append([last]) == "😀"


@pytest.mark.parametrize("make", [sentencepiece_backend, metaspace_backend])
def test_a_word_keeps_its_space_after_a_prompt_and_not_at_the_start(make):
    backend = make()
    pieces = Pieces(backend, frozenset({0, 1}))
    token = backend.token_to_id("▁w") or backend.token_to_id("▁world")
    at_start = Detokenizer(pieces, [0]).append([token])
    assert Detokenizer(pieces, [0, token]).append([token]) == " " + at_start


def test_an_endless_run_of_broken_bytes_is_linear_in_work():
    """Every broken byte is decided at once, so nothing waits and nothing is read twice."""
    backend = sentencepiece_backend()
    broken = backend.token_to_id("<0xFF>")
    state = Detokenizer(Pieces(backend, frozenset()))
    assert [state.append([broken]) for _ in range(50)] == ["\ufffd"] * 50


def test_an_unknown_decoder_is_refused():
    backend = byte_level_backend()
    backend.decoder = decoders.CTC()
    with pytest.raises(UnsupportedError, match="CTC"):
        Pieces(backend, frozenset())


def test_words_in_pieces_are_joined():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2, "a": 3}))
    backend.decoder = decoders.WordPiece(cleanup=False)
    pieces = Pieces(backend, frozenset())
    for ids in ([1, 2, 3, 1], [2, 1], [3], []):
        text = decode(pieces, ids)
        assert text == backend.decode(ids).removeprefix("##")


def test_special_tokens_stand_close_where_that_is_asked_for():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "[SEP]": 2, "[CLS]": 3}))
    for backend.decoder in (decoders.WordPiece(cleanup=False), None):
        pieces = Pieces(backend, frozenset({2, 3}))
        for close, expected in ((True, "play [SEP][CLS] play [SEP]"), (False, None)):
            state = Detokenizer(
                pieces, skip_special_tokens=False, spaces_between_special_tokens=not close
            )
            text = state.append([1, 2, 3, 1, 2]) + state.flush()
            assert text == (expected or "play [SEP] [CLS] play [SEP]")
        for prompt, expected in (([3, 1], " [SEP]"), ([1, 3], "[SEP]"), ([1, 3, 1], " [SEP]")):
            state = Detokenizer(
                pieces, prompt, skip_special_tokens=False, spaces_between_special_tokens=False
            )
            assert state.append([2]) == expected


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers(shared_data, name):
    tokenizer = load_real(shared_data, name)
    backend = tokenizer._backend

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(ids=_ids(tokenizer.vocab_size), text=st.text(max_size=30))
    def check(ids, text):
        state = tokenizer.detokenizer([])
        grown = "".join([*(state.append([token]) for token in ids), state.flush()])
        assert grown == tokenizer.decode(ids)
        expected = _reference(backend, [i for i in ids if i not in tokenizer.special_ids], False)
        assert expected is None or grown == expected
        encoded = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(encoded) == backend.decode(encoded)

    check()
