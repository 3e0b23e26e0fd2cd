"""Reasoning tokens are found by the bytes of the marks, however tokens cut them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.reasoning.thoughts import ThoughtMarks, Thoughts

THINK = ThoughtMarks(begin="<think>", ends=("</think>", "<tool>"))
OPEN = ThoughtMarks(begin="<think>", ends=("</think>", "<tool>"), is_open=True)
HARMONY = ThoughtMarks(
    begin="<|channel|>analysis<|message|>", ends=("<|end|>", "<|call|>"),
    answer="<|channel|>final<|message|>",
)  # fmt: skip


def follow(marks: ThoughtMarks, pieces: list[str]) -> Thoughts:
    thoughts = Thoughts(marks, lambda i: pieces[i].encode())
    thoughts.extend(range(len(pieces)))
    return thoughts


@pytest.mark.parametrize(
    ("marks", "reply", "count", "is_open", "ended"),
    [
        (OPEN, "hm| ok|</|think|>|Rome", 2, False, True),
        (OPEN, "hm| ok|</|thin|ner", 5, True, False),
        (OPEN, "hm|</", 2, True, False),  # the end of a reply that was cut off
        (OPEN, "a.</|think>\n\n|Rome", 1, False, True),  # a token counts by its first byte
        (OPEN, "\n|<think>|a|b|</think>", 2, False, True),  # said again, as some models do
        (OPEN, "\n|\n|a", 3, True, False),
        (OPEN, "\n|</think>|a", 0, False, True),
        (OPEN, "a|<tool>|b", 1, False, True),
        (OPEN, "", 0, True, False),
        (THINK, "\n<|think|>\n|a|b|</think>|c|<think>|d", 2, False, True),
        (THINK, "Rome|<think>|a", 0, False, True),
        (THINK, "<th|ink", 0, False, False),
        (
            HARMONY,
            "<|channel|>|analysis|<|message|>|a|b|<|end|>|<|start|>|assistant|<|channel|>|analysis"
            "|<|message|>|c|<|end|>|<|start|>|assistant|<|channel|>|final|<|message|>|d",
            3, False, True,
        ),
        (HARMONY, "<|channel|>|commentary|<|message|>|a|<|call|>", 0, False, False),
    ],
)  # fmt: skip
def test_replies(marks, reply, count, is_open, ended):
    pieces = ["".join(("<|", p, "|>")) if p in _NAMES else p for p in _split(reply)]
    thoughts = follow(marks, pieces)
    assert (thoughts.num_tokens, thoughts.is_open, thoughts.ended) == (count, is_open, ended)


_NAMES = {"channel", "message", "end", "start", "call"}


def _split(reply: str) -> list[str]:
    """Pieces between bars; the bars of <|names|> are none."""
    for name in _NAMES:
        reply = reply.replace(f"<|{name}|>", f"|{name}|")
    return [piece for piece in reply.split("|") if piece]


@given(
    st.lists(st.sampled_from(["a", "<", "</", "think", ">", "</think>", "\n", "<think>", "é"])),
    st.booleans(),
    st.data(),
)
def test_the_cut_does_not_move_the_marks(pieces, is_open, data):
    """Letters one by one and in pieces end alike, and as many letters are reasoning."""
    text = "".join(pieces)
    marks = OPEN if is_open else THINK
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))) | {0, len(text)})
    parts = [text[a:b] for a, b in pairwise(cuts)]
    by_letter, by_part = follow(marks, list(text)), follow(marks, parts)
    assert by_letter.ended == by_part.ended
    assert by_letter.is_open == by_part.is_open
    firsts = {cut for cut in cuts[:-1]}
    inside = _inside(text, marks)
    assert by_letter.num_tokens == len(inside)
    assert by_part.num_tokens == len(inside & firsts)


def _inside(text: str, marks: ThoughtMarks) -> set[int]:
    """Places of the letters that are reasoning, found in the whole text."""
    start = len(text) - len(text.lstrip())
    rest = text[start:]
    if rest.startswith(marks.begin):
        first = start + len(marks.begin)
    elif marks.is_open:
        first = 0
    else:
        return set()
    ends = [place for end in marks.ends if (place := text.find(end, first)) >= 0]
    if first == 0 and rest.startswith(marks.ends):
        return set()
    return set(range(first, min(ends, default=len(text))))
