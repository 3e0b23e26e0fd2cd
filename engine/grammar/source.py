"""From what a request demands to one text in llguidance's format, which the engine then compiles.

Errors here say what is wrong and not which field: the caller knows under which name a client sent
it, and writes it in front.
"""

import json

from llguidance import LLMatcher

from engine.errors import RequestError
from engine.grammar.ebnf import is_lark, to_lark
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.schema import json_source
from engine.grammar.tags import SpecialTokens, tags_source


def grammar_source(params: StructuredOutputsParams, special_tokens: SpecialTokens) -> str:
    """The llguidance source of `params`; raises `RequestError` for what is malformed.

    `special_tokens` maps the names of the tokenizer's marks (`mark_ids`) to their ids: structural
    tags that are written with them mean the tokens, not their letters.
    """
    match params.constraint:
        case "json" | "json_object":
            return json_source(params)
        case "regex":
            return LLMatcher.grammar_from_regex(params.regex or "")
        case "choice":
            return _choice(params.choice or [])
        case "grammar":
            return _grammar(params.grammar or "")
        case _:
            return tags_source(params.structural_tag, special_tokens)


def lark_of(grammar: str) -> str:
    """Lark as it is; GBNF, which xgrammar calls EBNF, translated. Raises `RequestError`."""
    return grammar if is_lark(grammar) else to_lark(grammar)


def _grammar(grammar: str) -> str:
    if not grammar.strip():
        raise RequestError("the grammar is empty")
    return LLMatcher.grammar_from_lark(lark_of(grammar))


def _choice(choice: list[str]) -> str:
    """Texts as Lark's strings, which are JSON's."""
    return LLMatcher.grammar_from_lark("start: " + " | ".join(map(json.dumps, choice)))
