"""InternLM 2 and 3."""

from serve.reply.format import ToolFormat
from serve.reply.json_calls import JsonCalls, Keys

FORMATS = (
    ToolFormat(
        ("internlm", "internlm2"),
        JsonCalls(
            begin=("<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"),
            end="<|action_end|>",
            keys=Keys(arguments=("parameters", "arguments")),
        ),
        marks=(("<|plugin|>",),),
        special=True,
    ),
)
