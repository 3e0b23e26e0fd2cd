"""The many models that think between <think> tags, and those that say it in words."""

from serve.reply.format import ThinkingFormat
from serve.reply.reasoning import ReasoningFormat

_FIRST, _LAST = "<think>", "</think>"

FORMATS = (
    ThinkingFormat(
        (
            "qwen3",
            "glm45",
            "glm47",
            "deepseek_v3",
            "deepseek-v3",
            "olmo3",
            "ernie45",
            "step3p5",
            "nemotron_v3",
            "nemotron_3",
            "mimo",
        ),
        ReasoningFormat(_FIRST, _LAST),
        marks=((_FIRST,), (_LAST,)),
    ),
    ThinkingFormat(
        ("hunyuan_a13b", "granite33"),
        ReasoningFormat(
            _FIRST, _LAST, answer=("<answer>", "</answer>", "<response>", "</response>")
        ),
        marks=((_FIRST, "<answer>", "</answer>"), (_FIRST, "<response>", "<|start_of_role|>")),
    ),
    ThinkingFormat(
        ("granite",),
        ReasoningFormat("Here is my thought process:", "Here is my response:"),
        marks=(("Here is my thought process:", "Here is my response:"),),
    ),
    ThinkingFormat(
        ("apriel",),
        ReasoningFormat(
            "Here are my reasoning steps:",
            "[BEGIN FINAL RESPONSE]",
            answer=("[END FINAL RESPONSE]",),
        ),
        marks=(("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),),
    ),
)
