"""Replies whose answer is constrained, and whose reasoning is not.

    <think> free text </think> {"city": "Rome"}

What is constrained is written as a part of a structural tag (`engine.grammar.tags`), and reasoning
is put before it as this model writes it.
"""

from serve.reply.bound import BLANKS, Part, const, either, in_order, text_until
from serve.reply.harmony import ANALYSIS, FINAL, Harmony
from serve.reply.reasoning import ReasoningFormat, Thinking


def after_reasoning(reasoning: Thinking, prompt: str, answer: Part) -> Part:
    """What a reply to `prompt` must be if its answer must be `answer`."""
    match reasoning:
        case Harmony():
            thought = text_until("<|end|>", begin=ANALYSIS)
            again = const(f"<|start|>assistant{FINAL}")
            return either(in_order(thought, again, answer), in_order(const(FINAL), answer))
        case ReasoningFormat() if prompt.rstrip().endswith(reasoning.end):
            return answer
        case ReasoningFormat() if reasoning.is_open(prompt):
            return in_order(_thought(reasoning, ""), BLANKS, answer)
        case ReasoningFormat():
            return either(in_order(_thought(reasoning, reasoning.begin), BLANKS, answer), answer)
    return answer


def _thought(reasoning: ReasoningFormat, begin: str) -> Part:
    ends = (reasoning.end, *reasoning.also_ends)  # their letters end it too, where they are tokens
    return text_until(reasoning.end, begin=begin, excludes=ends)
