"""Solar Open."""

from serve.reply.format import ToolFormat
from serve.reply.named_calls import NamedCalls

FORMATS = (
    ToolFormat(
        ("solar",),
        NamedCalls(
            begin=("<|tool_call:begin|>",),
            skip_to="<|tool_call:name|>",
            before_name="[0-9A-Za-z_-]{1,40}",
            then=("<|tool_call:args|>",),
            end=("<|tool_call:end|>",),
            around=("<|tool_calls|>", "<|calls|>"),
        ),
        marks=(("<|tool_call:name|>", "<|tool_call:args|>"),),
        special=True,
    ),
)
