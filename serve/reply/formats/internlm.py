"""InternLM 2 and 3."""

from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls

FORMATS = (
    ToolFormat(
        ("internlm", "internlm2"),
        JsonCalls(
            begin=("<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"),
            end="<|action_end|>",
        ),
        marks=(("<|plugin|>",),),
        special=True,
    ),
)
