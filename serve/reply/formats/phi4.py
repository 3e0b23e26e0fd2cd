"""Phi 4 mini."""

from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls

FORMATS = (
    ToolFormat(
        ("phi4_mini_json", "phi4"),
        JsonCalls(begin=("functools", "<|tool_call|>"), end="<|/tool_call|>"),
        marks=(("<|tool|>", "<|/tool|>"),),
        special=True,
    ),
)
