"""The compiler's process: what is not worth a process is refused before there is one."""

from pathlib import Path

import pytest

from engine.errors import RequestError
from engine.grammar.params import StructuredOutputsParams
from engine.grammar.process import GrammarProcess
from engine.messages import ModelInfo

INFO = ModelInfo(
    architecture="", vocab_size=9, max_model_len=9, num_parameters=0, eos_token_ids=[2],
    max_num_seqs=1, num_pages=1, page_size=16, load_seconds=0, compile_seconds=0,
)  # fmt: skip


@pytest.mark.parametrize("value", ["\ud800", 1j, object()])
def test_a_schema_of_what_json_cannot_hold_is_refused(value):
    grammars = GrammarProcess(Path("nowhere"), INFO)
    with pytest.raises(RequestError, match="it holds what JSON cannot"):
        grammars.compile(StructuredOutputsParams(json={"const": value}))


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_integers_that_cannot_be_sent_are_refused(value):
    grammars = GrammarProcess(Path("nowhere"), INFO)
    with pytest.raises(RequestError, match="an integer of more than 64 bits"):
        grammars.compile(StructuredOutputsParams(json={"type": "integer", "maximum": value}))
