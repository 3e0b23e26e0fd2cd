"""Options of a beam search and their bounds."""

import msgspec
import pytest

from engine import BeamSearchParams
from engine.errors import RequestError


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("beam_width", 0), ("beam_width", 21), ("beam_width", 2.0), ("beam_width", True),
        ("max_tokens", 0), ("max_tokens", 2**31), ("max_tokens", None),
        ("ignore_eos", 1), ("temperature", 0.7), ("temperature", -1), ("temperature", "0"),
        ("length_penalty", 10.5), ("length_penalty", float("nan")), ("length_penalty", -11),
        ("early_stopping", "always"), ("early_stopping", 1), ("early_stopping", None),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_named(param, value):
    with pytest.raises(RequestError) as caught:
        BeamSearchParams(**{"beam_width": 2, "max_tokens": 4, param: value})
    assert caught.value.param == param


def test_names_and_order_are_vllm_s_and_survive_the_wire():
    params = BeamSearchParams(3, 8, False, 0.0, -1.5, early_stopping="never")
    assert params.beam_width == 3 and params.length_penalty == -1.5
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(params), type=BeamSearchParams)
    assert again == params


@pytest.mark.parametrize(
    ("vocab", "num_eos", "ignore", "most"),
    [(1000, 1, False, 19), (1000, 3, False, 17), (1000, 3, True, 20), (7, 2, False, 5)],
)
def test_beams_are_as_many_as_can_be_told_apart(vocab, num_eos, ignore, most):
    BeamSearchParams(most, 1, ignore).check_model(vocab, num_eos)
    if most < 20:
        with pytest.raises(RequestError, match=f"best_of may be at most {most} ") as caught:
            BeamSearchParams(most + 1, 1, ignore).check_model(vocab, num_eos, "best_of")
        assert caught.value.param == "best_of"
