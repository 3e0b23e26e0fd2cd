"""Granite 3."""

from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls

FORMATS = (
    ToolFormat(
        ("granite", "granite-20b-fc"),
        JsonCalls(begin=("<|tool_call|>", "<tool_call>", "<function_call>")),
        marks=(("<|tool_call|>", "<|start_of_role|>"),),
        special=True,
    ),
)
