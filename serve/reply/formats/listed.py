"""Lists of objects between tags: Apertus, Apriel, GigaChat, Hunyuan, Jamba, Nemotron."""

from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls

FORMATS = (
    ToolFormat(
        ("apertus",),
        JsonCalls(begin=("<|tools_prefix|>",), end="<|tools_suffix|>", name_as_key=True),
        marks=(("<|tools_prefix|>",),),
        special=True,
    ),
    ToolFormat(
        ("jamba", "hunyuan_a13b", "apriel"),
        JsonCalls(begin=("<tool_calls>",), end="</tool_calls>"),
        marks=(("<tool_calls>",),),
    ),
    ToolFormat(
        ("nemotron_json",),
        JsonCalls(begin=("<TOOLCALL>",), end="</TOOLCALL>"),
        marks=(("<TOOLCALL>",),),
    ),
    ToolFormat(
        ("gigachat3",),
        JsonCalls(
            begin=(
                "<|message_sep|>\n\nfunction call<|role_sep|>\n",
                "function call<|role_sep|>\n",
                "<|function_call|>",
            ),
            end="<|message_sep|>",
        ),
        marks=(("function call", "<|role_sep|>"), ("<|function_call|>", "<|role_sep|>")),
        special=True,
    ),
)
