"""Cohere: Command R7B, A and later; Command R and R+ before them."""

from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.json_calls import JsonCalls, Keys
from serve.reply.reasoning import ReasoningFormat

_KEYS = Keys(name=("tool_name",), arguments=("parameters",), id="tool_call_id")

FORMATS = (
    ToolFormat(
        ("cohere_command3", "cohere"),
        JsonCalls(begin=("<|START_ACTION|>",), end="<|END_ACTION|>", keys=_KEYS),
        marks=(("<|START_ACTION|>", "<|END_ACTION|>"),),
        special=True,
    ),
    ToolFormat(
        ("command_r",),
        JsonCalls(begin=("Action: ```json\n", "Action:\n```json\n"), end="```", keys=_KEYS),
        marks=(("Action:", "```json", '"tool_name"'),),
    ),
    ThinkingFormat(
        ("cohere_command3", "cohere"),
        ReasoningFormat(
            "<|START_THINKING|>",
            "<|END_THINKING|>",
            answer=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        ),
        marks=(("<|START_THINKING|>",),),
        special=True,
    ),
)
