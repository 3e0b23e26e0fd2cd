"""stub"""

from llguidance.gbnf_to_lark import any_to_lark

from engine.errors import RequestError


def to_lark(text: str) -> str:
    try:
        return any_to_lark(text)
    except Exception as e:
        raise RequestError(str(e)) from None
