"""Compiled grammars are kept, up to a limit; the vocabulary is a model's own."""

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from engine.errors import RequestError
from engine.grammar import background
from engine.grammar.background import CompiledGrammars, ConstraintThreads
from engine.grammar.matcher import Constraint, compile_grammar, load_vocabulary, make_vocabulary
from engine.tokenizers.tokenizer import Tokenizer
from engine.tokenizers.tokenizer_files import TokenizerFiles
from models.errors import UnsupportedError
from tests.engine.grammar.conftest import allowed


def test_a_grammar_is_compiled_once_while_it_is_kept(source, vocabulary, monkeypatch):
    compiled = []

    def count(vocabulary, text):
        compiled.append(text)
        return compile_grammar(vocabulary, text)

    monkeypatch.setattr(background, "compile_grammar", count)
    sources = [source(regex=f"a{{{number}}}") for number in range(1, 30)]
    kept = CompiledGrammars(max_bytes=sum(map(len, sources[:10])))
    for text in sources:
        kept.get(vocabulary, text)
        kept.get(vocabulary, sources[0])
        assert len(kept) <= 10
    assert compiled == sources  # the first was always asked for, and never forgotten
    kept.get(vocabulary, sources[1])
    assert compiled[-1] == sources[1]
    with pytest.raises(RequestError):
        kept.get(vocabulary, "start: nothing")


def test_copies_go_their_own_ways(source, vocabulary, tokenizer):
    kept = CompiledGrammars()
    first, second = (
        Constraint(vocabulary, kept.get(vocabulary, source(choice=["ab", "cd"]))) for _ in range(2)
    )
    first.begin()
    second.begin()
    assert allowed(first) == allowed(second)
    a = tokenizer.encode("a", add_special_tokens=False)[0]
    assert tokenizer.decode(first.advance(a)) == "b" and first.finished
    assert not second.finished and a in allowed(second)


@pytest.mark.parametrize("name", ["gpt2", "qwen2.5", "phi-3"])
def test_vocabularies_of_well_known_models(shared_data, name):
    """Byte-level BPE and sentencepiece; more columns of logits than tokens."""
    tokenizer = Tokenizer.load(shared_data / "tokenizers" / name)
    columns = tokenizer.vocab_size + 77
    vocabulary = make_vocabulary(tokenizer, columns, [tokenizer.eos_token_id])
    text = '{"name": "Zoë 日本", "n": -1.5e3}'
    schema = """start: %json {"type": "object", "x-guidance": {"whitespace_pattern": " "}}"""
    constraint = Constraint(vocabulary, compile_grammar(vocabulary, schema), jump=False)
    constraint.begin()
    ids = vocabulary.tokens.tokenize_str(text)
    for token in ids:
        assert token in allowed(constraint)
        last = max(allowed(constraint))
        constraint.advance(token)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == text
    assert constraint.finished and last < columns


def test_tokens_whose_bytes_are_not_known_are_refused():
    backend = Backend(models.WordLevel({"▁a": 0, "</s>": 1}, unk_token="</s>"))
    backend.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(TokenizerFiles(backend, {"eos_token": "</s>"}, {}))
    with pytest.raises(UnsupportedError, match="bytes of its tokens"):
        make_vocabulary(tokenizer, 2, [1])


def test_a_text_that_the_vocabulary_cannot_write(shared_data):
    folder = shared_data / "weights" / "babyllama105"  # no braces among its 105 characters
    threads = ConstraintThreads(lambda: load_vocabulary(folder, 105, [2]))
    with pytest.raises(RequestError, match="vocabulary"):
        threads.check('start: "{"')
    threads.check('start: "a dog"')
    threads.close()
