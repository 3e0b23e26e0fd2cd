"""Qwen 3 Coder, Qwen 3.5, Nemotron 3, Step 3.5; with its own outer tags Seed OSS."""

from dataclasses import replace

from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.reasoning import ReasoningFormat
from serve.reply.tagged_calls import TaggedCalls
from serve.reply.tags import Tags

_QWEN = Tags(
    around=("<tool_call>", "</tool_call>"),
    call="<function=",
    named=(">",),
    parameter="<parameter=",
    keyed=">",
    valued="</parameter>",
    end="</function>",
    padded=True,
)
_TAGS = ("<function=", "<parameter=")

FORMATS = (
    ToolFormat(
        ("qwen3_coder", "qwen3_xml", "step3p5"),
        TaggedCalls(_QWEN),
        marks=(("<tool_call>", *_TAGS),),
    ),
    ToolFormat(
        ("seed_oss",),
        TaggedCalls(replace(_QWEN, around=("<seed:tool_call>", "</seed:tool_call>"))),
        marks=(("seed:tool_call", *_TAGS),),
    ),
    ThinkingFormat(
        ("seed_oss",),
        ReasoningFormat("<seed:think>", "</seed:think>"),
        marks=(("seed:think",),),
    ),
)
