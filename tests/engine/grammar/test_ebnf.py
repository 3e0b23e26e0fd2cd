"""GBNF: read, refused, and turned into Lark of the same language."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.grammar.ebnf import to_lark
from engine.grammar.matcher import compile_grammar

JSON = r"""
root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::=
  "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
# Optional space: by convention, applied after literals
ws ::= | " " | "\n" [ \t]{0,20}
"""


@pytest.mark.parametrize(
    ("grammar", "texts", "others"),
    [
        ('root ::= "a" [0-9]+ ws\nws ::= [ \\t]*', ["a1", "a12 \t"], ["a", "1"]),
        ('root ::= x # here\n  | y\nx ::= "x"\ny ::= "y" root?', ["x", "yyx", "yy"], ["xx"]),
        (r'root ::= "\u0041\x42\U0001F600\n\"" ', ['AB😀\n"'], ["A"]),
        (r"root ::= [-a-c] [a\-z] [^\]a] [a\]/]", ["--z]", "bzb/"], ["-bz]", "--aa"]),
        ("root ::= [\\u4e00-\\u9fff]{2,3}", ["日本", "日本日"], ["日", "ab"]),
        ('root ::= ("ab" .){2}', ["ab\nabé"], ["ab\n"]),
        ('root ::= "" | a-b\na-b ::= "a"', ["", "a"], ["aa"]),
        ('root ::= "(" root ")" | [0-9]+ ("," [0-9]+)*', ["((1))", "1,23"], ["(1", "1,"]),
        # what may follow the words is also in them: no terminal, or nothing would ever match
        (
            'root ::= say words "." say\nsay ::= "" | "!" root\nwords ::= [a-z .]+',
            ["it is.", "a..", "a.!b."],
            [".", "a"],
        ),
        ('root ::= a "ab" root?\na ::= "x" | "xa" "a"*', ["xab", "xaab", "xabxaab"], ["xb"]),
        (JSON, ['{"a": [1, 2.5e3, "x\\n", {}], "b": null}', "{}"], ['{"a" 1}', '{"a": 1,}']),
    ],
)
def test_the_same_language(grammar, texts, others, source, accepts):
    lark = source(grammar=grammar)
    assert [accepts(lark, text) for text in texts] == ["whole"] * len(texts)
    assert "whole" not in [accepts(lark, text) for text in others]


def test_terminals_where_they_are_safe():
    lark = to_lark('root ::= list\nlist ::= "[" (word ("," list)*)? "]"\nword ::= [a-z]+')
    assert re.search(r"R\d+: /\[a-z\]/\+", lark)
    lark = to_lark('root ::= "(" words "." root? ")"\nwords ::= [a-z.]+')
    assert re.search(r"r\d+: /\[a-z\\u\{2e\}\]/\+", lark)


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ('main ::= "a"', "no rule root"),
        ('root ::= "a', "line 1"),
        ('root ::= "a"\nroot ::= "b"', "line 2.*twice"),
        ("root ::= b", "'b' is used"),
        ("root ::= (a", "not closed"),
        ('root ::= "a" )', "unexpected"),
        ("root ::= [z-a]", "z-a is empty"),
        ("root ::= []", "empty"),
        ('root ::= "a"{3,1}', "repetitions"),
        ('root ::= "a"{99999}', "repetitions"),
        ('root ::= "\\q"', "escape"),
        ('root ::= "\\ud800"', "no character"),
        ('root = "a"', "no part of a grammar"),
        ("(" * 30_000, "expected a rule"),
        ("root ::= " + "(" * 30_000, "parentheses"),
        ("root ::= ?", "unexpected"),
    ],
)
def test_what_is_no_gbnf_is_refused(grammar, says):
    with pytest.raises(RequestError, match=says):
        to_lark(grammar)


_leaf = st.sampled_from(['"a"', '"ab"', '"b"', "[a-c]", "[^a]", '""', "r1", "r2"])
_body = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["*", "?", "+", "{2}", "{0,2}"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
        st.lists(inner, min_size=2, max_size=3).map(" ".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' | '.join(parts)})"),
    ),
    max_leaves=5,
)


def _regex(body: str, rules: dict[str, str]) -> str:
    for _ in range(3):
        for name, rule in rules.items():
            body = body.replace(name, f"({rule})")
    return body.replace('"', "").replace(" ", "")


@settings(max_examples=60, deadline=None)
@given(
    root=_body, r1=_body.filter(lambda b: "r" not in b), r2=_body.filter(lambda b: "r2" not in b)
)
def test_nothing_outside_the_language_is_accepted(root, r1, r2, vocabulary):
    """Against Python's regexes, for grammars without recursion, on all short texts."""
    grammar = f"root ::= {root}\nr1 ::= {r1}\nr2 ::= {r2}\n"
    try:
        matcher = compile_grammar(vocabulary, to_lark(grammar))
    except RequestError:
        return
    pattern = re.compile(_regex(root, {"r2": r2, "r1": r1}), re.DOTALL)
    for text in ("", "a", "b", "ab", "ba", "aab", "abab", "bca", "cc"):
        mine = matcher.deep_copy()
        ids = vocabulary.tokens.tokenize_str(text)
        if mine.try_consume_tokens(ids) == len(ids) and mine.is_accepting():
            assert pattern.fullmatch(text), (grammar, text)
