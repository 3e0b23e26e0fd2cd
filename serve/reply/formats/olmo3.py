"""OLMo 3: Python calls, line by line."""

from serve.reply.format import ToolFormat
from serve.reply.python_calls import PythonCalls

FORMATS = (
    ToolFormat(
        ("olmo3",),
        PythonCalls(begin=("<function_calls>",), end=("</function_calls>",), listed=False),
        marks=(("<function_calls>",),),
    ),
)
