"""What does not fit a field is said with the field's place and with what would fit."""

import json
from typing import Any

import pytest

from engine.errors import RequestError
from serve.messages.protocol import MessagesRequest
from serve.protocol.chat import ChatRequest
from serve.protocol.decoding import decode_request
from serve.responses.protocol import ResponsesRequest
from serve.responses.translate import new_items

IMAGE = [{"type": "image_url", "image_url": {"url": "x"}}]


@pytest.mark.parametrize(
    ("kind", "body", "says", "param"),
    [
        (ChatRequest, {"messages": [{"role": "wizard"}]},
         "messages[0].role must be one of 'assistant', 'developer', 'function', 'system', 'tool', "
         "'user'; got 'wizard'.", "messages"),
        (ChatRequest, {"messages": [{"role": "user", "content": IMAGE}]},
         "messages[0].content[0].type must be 'text'; got 'image_url'.", "messages"),
        (ChatRequest, {"messages": [{}]}, "messages[0].role is missing.", "messages"),
        (ChatRequest, {"messages": [{"role": "user", "contnt": 1}]},
         "messages[0].contnt is no field here.", "messages"),
        (ChatRequest, {"tool_choice": {"type": "{}"}},
         "tool_choice.type must be one of 'function', 'allowed_tools'; got '{}'.", "tool_choice"),
        (ChatRequest, {"tool_choice": "x"},
         "tool_choice must be one of 'auto', 'none', 'required'; got 'x'.", "tool_choice"),
        *((kind, {"stream_options": {"include_obfuscation": True}},
           "stream_options.include_obfuscation is not served here; leave it out or send false.",
           "stream_options") for kind in (ChatRequest, ResponsesRequest)),
        (ChatRequest, {"return_hidden_states": "x"},
         "return_hidden_states must be one of 'last', true, false; got 'x'.",
         "return_hidden_states"),
        (ResponsesRequest, {"include": ["x"]}, "include 'x' is not served here; message.output",
         "include"),
        (ChatRequest, {"stop": [1]}, "stop[0] is wrong: Expected str, got int.", "stop"),
        (ChatRequest, [], "The body is wrong: Expected object, got array.", None),
        (MessagesRequest, {"model": "m", "messages": []}, "max_tokens is missing.", "max_tokens"),
        (ResponsesRequest, {"input": [{"type": "input_audio"}]},
         "input[0].type must be one of 'message', 'function_call', 'function_call_output', "
         "'reasoning'; got 'input_audio'.", "input"),
        (ResponsesRequest, {"input": [{"role": "user", "content": [{"type": "x"}]}]},
         "input[0].content[0].type must be one of", "input"),
    ],
)  # fmt: skip
def test_what_would_fit_is_said(kind: Any, body: Any, says: str, param: str | None) -> None:
    with pytest.raises(RequestError) as error:
        request = decode_request(json.dumps(body).encode(), kind)
        new_items(request)
    message = str(error.value)
    assert message == says or (not says.endswith(".") and message.startswith(says)), message
    assert error.value.param == param
