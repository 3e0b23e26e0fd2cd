"""Which requests share a batch of an encoder, while its programs are still arriving."""

from collections import deque
from itertools import compress, product
from types import SimpleNamespace

import pytest

from engine import PoolingParams
from engine.messages import PoolRequest
from engine.pooling.batch import Waiting
from engine.pooling.encoder_runner import EncoderRunner
from engine.pooling.shapes import encoder_shapes
from models.sharding import make_mesh


class Arriving:
    """Programs of which one more is ready each time one looks."""

    def __init__(self, shapes):
        self._programs = [SimpleNamespace(shape=shape) for shape in shapes]
        self._looks = 0

    @property
    def ready(self):
        self._looks += 1
        return self._programs[: self._looks]


@pytest.mark.parametrize("length", [1, 9, 16, 17, 33])
def test_whichever_programs_are_ready_the_first_request_is_taken(length):
    """Every set of programs that can be there, as long as the largest is."""
    shapes = encoder_shapes(rows=4, tokens=256, longest=64).steps
    runner = EncoderRunner(SimpleNamespace(mesh=make_mesh(1)), encoder_shapes(4, 256, 64))
    for chosen in product([False, True], repeat=len(shapes) - 1):
        ready = [shapes[-1], *compress(shapes[:-1], chosen)]
        runner.programs = SimpleNamespace(ready=[SimpleNamespace(shape=shape) for shape in ready])
        waiting = deque(request(i, length + i) for i in range(3))
        head = waiting[0]
        assert head in runner.take(waiting) and head not in waiting


def request(number, length):
    params = PoolingParams()
    return Waiting(PoolRequest(request_id=number, prompt_token_ids=[1] * length, params=params))


@pytest.mark.parametrize("length", [1, 9, 16, 17, 33])
def test_a_program_that_arrives_meanwhile_leaves_no_batch_empty(length):
    shapes = encoder_shapes(rows=4, tokens=256, longest=64)
    runner = EncoderRunner(SimpleNamespace(mesh=make_mesh(1)), shapes)
    runner.programs = Arriving(reversed(shapes.steps))  # the longest rows first
    waiting = deque(request(i, length) for i in range(3))
    while waiting:
        head = waiting[0]
        assert head in runner.take(waiting)
