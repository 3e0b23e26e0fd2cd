"""Which requests share a batch of an encoder, while its programs are still arriving."""

from collections import deque
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
def test_a_program_that_arrives_meanwhile_leaves_no_batch_empty(length):
    shapes = encoder_shapes(rows=4, tokens=256, longest=64)
    runner = EncoderRunner(SimpleNamespace(mesh=make_mesh(1)), shapes)
    runner.programs = Arriving(reversed(shapes.steps))  # the longest rows first
    waiting = deque(
        Waiting(PoolRequest(request_id=i, prompt_token_ids=[1] * length, params=PoolingParams()))
        for i in range(3)
    )
    while waiting:
        head = waiting[0]
        assert head in runner.take(waiting)
