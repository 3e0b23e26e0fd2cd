"""Gemma 3, Function Gemma, and Gemma 4."""

from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.gemma_calls import GemmaCalls
from serve.reply.python_calls import PythonCalls
from serve.reply.reasoning import ReasoningFormat

FORMATS = (
    ToolFormat(
        ("gemma3", "gemma"),
        PythonCalls(begin=("```tool_code\n",), end=("```",), listed=False),
        marks=(("tool_code", "<start_of_turn>"),),
    ),
    ToolFormat(
        ("functiongemma",),
        GemmaCalls("<start_function_call>", "<end_function_call>", "<escape>"),
        marks=(("<start_function_call>",),),
        special=True,
    ),
    ToolFormat(
        ("gemma4",),
        GemmaCalls("<|tool_call>", "<tool_call|>", '<|"|>'),
        marks=(("<|tool_call>", '<|"|>'),),
        special=True,
    ),
    ThinkingFormat(
        ("gemma4",),
        ReasoningFormat("<|channel>thought\n", "<channel|>"),
        marks=(("<|channel>thought",),),
        special=True,
    ),
)
