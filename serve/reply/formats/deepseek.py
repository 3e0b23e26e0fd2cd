"""DeepSeek V3 and R1, V3.1, and V3.2."""

from serve.reply.format import ThinkingFormat, ToolFormat
from serve.reply.named_calls import NamedCalls
from serve.reply.reasoning import ReasoningFormat
from serve.reply.tagged_calls import TaggedCalls
from serve.reply.tags import Tags

_AROUND = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_BEGIN, _SEPARATOR, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"

FORMATS = (
    ToolFormat(
        ("deepseek_v3", "deepseekv3"),
        NamedCalls(
            begin=(_BEGIN,), skip_to=_SEPARATOR, then=("\n",),
            end=("```", _END), around=_AROUND, before_name="function", opening="```json\n",
        ),
        marks=((_SEPARATOR, "```json"),),
        special=True,
    ),
    ToolFormat(
        ("deepseek_v31", "deepseekv31"),
        NamedCalls(begin=(_BEGIN,), then=(_SEPARATOR,), end=(_END,), around=_AROUND),
        marks=((_SEPARATOR,),),
        special=True,
    ),
    ToolFormat(
        ("deepseek_v32", "deepseekv32"),
        TaggedCalls(
            Tags(
                around=("<｜DSML｜function_calls>", "</｜DSML｜function_calls>"),
                call='<｜DSML｜invoke name="',
                named=('">',),
                parameter='<｜DSML｜parameter name="',
                keyed='"',
                typed=True,
                valued="</｜DSML｜parameter>",
                end="</｜DSML｜invoke>",
            )
        ),
        marks=(("｜DSML｜",),),
        special=True,
    ),
    ThinkingFormat(
        ("deepseek_r1", "deepseek-r1", "qwen3-thinking", "step3"),
        ReasoningFormat("<think>", "</think>", implied=True),
    ),
)  # fmt: skip
