"""Replies whose answer is constrained, and whose reasoning is not.

    <think> free text </think> {"city": "Rome"}

What is constrained is written as a part of a structural tag (`engine.grammar.tags`), and reasoning
is put before it as this model writes it.
"""

from typing import Any

from serve.reply.harmony import ANALYSIS, FINAL, HarmonyReasoning
from serve.reply.reasoning import ReasoningFormat, Thinking

Part = dict[str, Any]
_BLANKS: Part = {"type": "regex", "pattern": r"[ \n]{0,3}"}


def after_reasoning(reasoning: Thinking, prompt: str, answer: Part) -> Part:
    """What a reply to `prompt` must be if its answer must be `answer`."""
    match reasoning:
        case HarmonyReasoning():
            thought = _tag(ANALYSIS, "<|end|>")
            final = {"type": "const_string", "value": FINAL}
            again = {"type": "const_string", "value": f"<|start|>assistant{FINAL}"}
            return _either(_in_order(thought, again, answer), _in_order(final, answer))
        case ReasoningFormat() if prompt.rstrip().endswith(reasoning.end):
            return answer
        case ReasoningFormat() if reasoning.is_open(prompt):
            return _in_order(_tag("", reasoning.end), _BLANKS, answer)
        case ReasoningFormat():
            thought = _tag(reasoning.begin, reasoning.end)
            return _either(_in_order(thought, _BLANKS, answer), answer)
    return answer


def _tag(begin: str, end: str) -> Part:
    return {"type": "tag", "begin": begin, "content": {"type": "any_text"}, "end": end}


def _in_order(*parts: Part) -> Part:
    return {"type": "sequence", "elements": list(parts)}


def _either(*parts: Part) -> Part:
    return {"type": "or", "elements": list(parts)}
