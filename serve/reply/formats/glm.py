"""GLM 4.5 and later."""

from serve.reply.format import ToolFormat
from serve.reply.tagged_calls import TaggedCalls
from serve.reply.tags import Tags

FORMATS = (
    ToolFormat(
        ("glm45", "glm47", "glm"),
        TaggedCalls(
            Tags(
                call="<tool_call>",
                named=("\n", "<arg_key>", "</tool_call>"),
                named_stays=True,
                parameter="<arg_key>",
                keyed="</arg_key>",
                before_value="<arg_value>",
                valued="</arg_value>",
                end="</tool_call>",
            )
        ),
        marks=(("<tool_call>", "<arg_key>"),),
    ),
)
