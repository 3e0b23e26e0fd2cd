"""gpt-oss: one grammar for reasoning, answer and calls."""

from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.harmony import Harmony

_NAMES = ("openai", "gpt-oss", "openai_gptoss", "harmony")
_MARKS = (("<|channel|>", "<|start|>", "<|message|>"),)

FORMATS = (
    ToolFormat(_NAMES, Harmony(), marks=_MARKS, special=True),
    ThinkingFormat(_NAMES, Harmony(), marks=_MARKS, special=True, takes_calls=True),
)
