"""Hermes 2 and 3; Qwen 2.5 and 3, Granite 4, MiMo and others write the same."""

from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls

FORMATS = (
    ToolFormat(
        ("hermes", "qwen", "qwen25", "qwen3_json", "granite4", "ernie45", "longcat"),
        JsonCalls(begin=("<tool_call>",), end="</tool_call>"),
        marks=(("<tool_call>",),),
    ),
)
