"""Kimi K2, and the thoughts of Kimi before it."""

from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.named_calls import NamedCalls
from serve.reply.reasoning import ReasoningFormat

_SECTION = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")

FORMATS = (
    ToolFormat(
        ("kimi_k2",),
        NamedCalls(
            begin=("<|tool_call_begin|>",),
            then=("<|tool_call_argument_begin|>",),
            end=("<|tool_call_end|>",),
            around=_SECTION,
            native_id=True,
        ),
        marks=(_SECTION,),
        special=True,
    ),
    ThinkingFormat(
        ("kimi_k2",),
        ReasoningFormat("<think>", "</think>", also_ends=_SECTION[:1]),
        marks=(("<think>", *_SECTION),),
        special=True,
    ),
    ThinkingFormat(
        ("kimi",), ReasoningFormat("◁think▷", "◁/think▷"), marks=(("◁think▷",),), special=True
    ),
)
