"""The ladders of programs, and which program takes which step."""

from dataclasses import replace

import pytest

from engine.compiling.shapes import Shapes, decode_rows, decode_windows, mixed_tokens
from engine.config import EngineConfig
from engine.errors import ConfigError


@pytest.mark.parametrize(
    ("largest", "rows"),
    [
        (1, [1]),
        (3, [1, 2, 3]),
        (8, [1, 2, 4, 8]),
        (64, [1, 2, 4, 8, 16, 24, 32, 48, 64]),
        (100, [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 100]),
    ],
)
def test_decode_rows(largest, rows):
    assert decode_rows(largest) == rows


@pytest.mark.parametrize(
    ("largest", "tokens"), [(16, [16]), (100, [16, 32, 64, 104]), (256, [16, 32, 64, 128, 256])]
)
def test_mixed_tokens(largest, tokens):
    assert mixed_tokens(1, largest) == tokens


def test_largest_programs_take_every_step():
    shapes = Shapes(24, 80, 100, 16)
    mixed, decode = shapes.largest()
    for tokens in range(1, 81):
        assert shapes.fits(mixed, tokens, decode=False)
    assert shapes.fits(decode, 24, decode=True) and not shapes.fits(decode, 24, decode=False)
    assert shapes.table_width == 7
    assert decode.page_updates == 24 and mixed.page_updates == 24 + 80 // 16


def test_few_tokens_have_few_rows():
    """For 256 rows Llama 3.1 8B's head takes more than its layers for 16 tokens."""
    assert [(s.tokens, s.rows) for s in Shapes(100, 300, 400, 16).mixed()] == [
        (16, 16), (32, 32), (64, 64), (128, 100), (256, 100), (304, 100),
    ]  # fmt: skip


def test_budget_below_rows_is_refused():
    with pytest.raises(ConfigError, match="--max-num-batched-tokens 8 is below --max-num-seqs 16"):
        Shapes(16, 8, 100, 16)


@pytest.mark.parametrize(
    "most, windows", [(0, ()), (1, ()), (2, (2,)), (7, (4, 2)), (8, (8, 4, 2))]
)
def test_decode_windows(most, windows):
    assert decode_windows(most) == windows
    shapes = Shapes(4, 32, 100, 16, windows)
    assert len(shapes.windowed()) == len(windows) * len(shapes.decode())
    assert [shape.window for shape in shapes.largest()] == [1, 1, *windows[:1]]
    loops = replace(shapes, loops=True)
    assert loops.windowed() == shapes.windowed(), "these need no memory to be found out first"
    assert [shape.window for shape in loops.largest()] == [1, 1]
    assert all(shape.page_updates == shape.rows for shape in shapes.windowed())


@pytest.mark.parametrize("steps", [0, 3, 6, 17])
def test_numbers_of_steps_that_no_program_does_are_refused(steps):
    with pytest.raises(ConfigError, match=f"must be auto or one of 1, 2, 4, 8, 16, got {steps}"):
        EngineConfig(num_scheduler_steps=steps)


def test_two_steps_that_would_change_nothing_are_refused():
    with pytest.raises(ConfigError, match="--num-scheduler-steps 2 is two programs of one step"):
        EngineConfig(num_scheduler_steps=2)


@pytest.mark.parametrize("ahead, steps, windows", [
    (True, 1, ()), (True, 4, (2,)), (True, 16, (8, 4, 2)), (False, 2, (2,)), (False, 8, (8, 4, 2)),
])  # fmt: skip
def test_every_number_of_steps_that_is_taken_has_programs(ahead, steps, windows):
    config = EngineConfig(num_scheduler_steps=steps, async_scheduling=ahead)
    assert decode_windows(config.program_steps) == windows


@pytest.mark.parametrize("rows", [1, 5, 16, 24, 37, 64])
def test_rows_of_every_step_can_be_sampled_later(rows):
    shapes = Shapes(rows, 80, 100, 16, late=True)
    assert all(step.keeps_logits for step in shapes.decode() + shapes.mixed())
    late = [shape for shape in shapes.sampled_late() if shape.late]
    few, most = min(rows, 4), min(rows, 16)
    assert [(shape.tokens, shape.rows) for shape in late] == [
        (t, most) for t in sorted({few, most})
    ]
    taken = [shape for shape in shapes.sampled_late() if shape.takes]
    assert {shape.rows for shape in taken} == {s.rows for s in shapes.decode() + shapes.mixed()}
    assert Shapes(24, 80, 100, 16).sampled_late() == []
