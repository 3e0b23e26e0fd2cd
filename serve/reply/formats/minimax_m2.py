"""MiniMax M2."""

from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.reasoning import ReasoningFormat
from serve.reply.tagged_calls import TaggedCalls
from serve.reply.tags import Tags

FORMATS = (
    ToolFormat(
        ("minimax_m2", "minimax-m2"),
        TaggedCalls(
            Tags(
                around=("<minimax:tool_call>", "</minimax:tool_call>"),
                call='<invoke name="',
                named=('">',),
                parameter='<parameter name="',
                keyed='">',
                valued="</parameter>",
                end="</invoke>",
            )
        ),
        marks=(("minimax:tool_call", "<invoke name="),),
    ),
    ThinkingFormat(
        ("minimax_m2", "minimax-m2", "minimax"),
        ReasoningFormat("<think>", "</think>", implied=True, also_ends=("<minimax:tool_call>",)),
        marks=(("<think>", "minimax:tool_call"),),
    ),
)
