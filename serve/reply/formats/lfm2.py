"""LFM 2: Python calls in a list."""

from serve.reply.format import ToolFormat
from serve.reply.python_calls import PythonCalls

FORMATS = (
    ToolFormat(
        ("lfm2",),
        PythonCalls(begin=("<|tool_call_start|>",), end=("<|tool_call_end|>",)),
        marks=(("<|tool_call_start|>",), ("<|tool_list_start|>",)),
        special=True,
    ),
)
