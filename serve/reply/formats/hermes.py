"""Hermes 2 and 3; Qwen 2.5 and 3, Granite 4, MiMo and others write the same; LongCat renames."""

from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls

FORMATS = (
    ToolFormat(
        ("hermes", "qwen", "qwen25", "qwen3_json", "granite4", "ernie45"),
        JsonCalls(begin=("<tool_call>",), end="</tool_call>"),
        marks=(("<tool_call>",),),
    ),
    ToolFormat(
        ("longcat",),
        JsonCalls(begin=("<longcat_tool_call>",), end="</longcat_tool_call>"),
        marks=(("<longcat_tool_call>",),),
    ),
)
