"""Drafts that a server counts, by vLLM's names."""

import asyncio

import pytest

from serve.bench.drafts import Drafts, parse_drafts, read_drafts
from serve.bench.http_client import HttpError

TEXT = """
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0"} 10.0
vllm:spec_decode_num_drafts_total{engine="1"} 10.0
# TYPE vllm:spec_decode_num_draft_tokens_total counter
vllm:spec_decode_num_draft_tokens_total{engine="0"} 60.0
# TYPE vllm:spec_decode_num_accepted_tokens_total counter
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 30.0
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos_total counter
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 19.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 11.0
# TYPE other gauge
other 5.0
"""


def test_what_was_drafted_meanwhile():
    before = Drafts(10, 20, 0, {0: 9})
    assert parse_drafts(TEXT).since(before) == {
        "spec_decode_acceptance_rate": 75.0,
        "spec_decode_acceptance_length": 4.0,
        "spec_decode_num_drafts": 10,
        "spec_decode_draft_tokens": 40,
        "spec_decode_accepted_tokens": 30,
        "spec_decode_per_position_acceptance_rates": [1.0, 1.1],
    }
    assert parse_drafts(TEXT).since(parse_drafts(TEXT)) == {}


class Says:
    def __init__(self, answer):
        self.answer = answer

    async def fetch(self, *_, **__):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("answer", [HttpError("404"), OSError(), b"<html>", b"\xff", b"a{b 1\n"])
def test_a_server_that_counts_none_gives_no_field(answer):
    assert asyncio.run(read_drafts(Says(answer), {})) == Drafts()
