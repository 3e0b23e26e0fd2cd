"""The pool is what the compiler's own numbers leave of the memory."""

import logging
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from engine.compiling import fitting
from engine.compiling.fitting import fit
from engine.config import make_config
from engine.errors import ConfigError
from models.checkpoints.loading import load
from models.sharding import make_mesh

SETTINGS = {"max_num_seqs": 8, "max_num_batched_tokens": 64}
TOKEN_BYTES = 1000  # of temporaries, for each token of a step
STEPS = 2 * 64 * TOKEN_BYTES


@pytest.fixture(scope="module")
def model(tiny_folder):
    return load(tiny_folder, make_mesh(1), load_format="dummy")


@pytest.fixture
def compiled(monkeypatch):
    """A compiler that takes no time; lists the pages of what it compiled."""
    pages = []

    class Compiler:
        def __init__(self, shapes, lower, options):
            self.ready = [
                SimpleNamespace(temporary_bytes=TOKEN_BYTES * shape.tokens)
                for shape in shapes.largest()
            ]

        def compile_largest(self):
            pages.append(1)

        def close(self):
            self.ready = []

    monkeypatch.setattr(fitting, "Programs", Compiler)
    monkeypatch.setattr(fitting, "PageForks", Mock(return_value=Mock(temporary_bytes=0)))
    monkeypatch.setattr(fitting, "_guess_forks", lambda layout: 0)
    return pages


@pytest.fixture
def memory(monkeypatch):
    """Sets how many bytes a device has."""

    def have(num_bytes):
        monkeypatch.setattr(fitting, "usable_bytes", lambda config, mesh: num_bytes)

    return have


def guessed(monkeypatch, num_bytes):
    """Of the steps in flight."""
    monkeypatch.setattr(fitting, "_guess_step", lambda *_: num_bytes // 2)


def bytes_of(model, pages, length=128, steps=STEPS):
    """What so many pages, and all but weights besides, take."""
    shapes = fitting.Shapes(8, 64, length, 16)
    page = 2 * 2 * 2 * 16 * 8 * 4  # keys and values, layers, heads, slots, head dim, float32
    return pages * page + fitting._slot_bytes(shapes, model) + steps


def fitted(model, **settings):
    return fit(make_config(model=str(model.folder), **{**SETTINGS, **settings}), model)


@pytest.mark.parametrize("guess", [0, STEPS // 2, STEPS, 2**27])
def test_pages_steps_and_slots_fill_the_memory_whatever_was_guessed(
    model, compiled, memory, monkeypatch, guess
):
    guessed(monkeypatch, guess)
    for pages in (9, 20, 64):
        memory(bytes_of(model, pages) + 4095)
        found = fitted(model)
        assert found.kv.num_pages == pages and found.temporary_bytes == STEPS
        assert found.kv.num_pages * found.kv.page_bytes == found.page_bytes
        assert found.programs.ready


def test_what_copies_pages_between_steps_has_its_memory(model, compiled, memory, monkeypatch):
    memory(bytes_of(model, 20))
    forks = Mock(temporary_bytes=3 * 4096)
    monkeypatch.setattr(fitting, "PageForks", Mock(return_value=forks))
    found = fitted(model)
    assert found.temporary_bytes == STEPS + 3 * 4096 and found.kv.num_pages == 20 - 3
    assert found.forks is forks and forks.warm_up.called


def test_a_guess_that_is_near_costs_no_second_compile(model, compiled, memory, monkeypatch):
    memory(bytes_of(model, 64))
    for above, compiles in ((0, 1), (4096, 1), (5 * 4096, 2), (-4096, 2)):
        compiled.clear()
        guessed(monkeypatch, STEPS + above)
        fitted(model)
        assert len(compiled) == compiles, above


def test_pages_that_rows_cannot_use_are_not_made(model, compiled, memory):
    memory(2**33)
    assert fitted(model).kv.num_pages == 8 * 8 + 1 and len(compiled) == 1
    memory(None)
    assert fitted(model).kv.num_pages == 8 * 8 + 1


def test_what_is_free_differs_from_start_to_start_and_the_programs_do_not(model, compiled, memory):
    sizes = set()
    for jitter in range(0, 20):
        memory(bytes_of(model, 80_000) + jitter * 4096)
        sizes.add(fitted(model, max_num_seqs=8192, max_num_batched_tokens=8192).kv.num_pages)
    assert min(sizes) > 10_000  # of which 20 are a small part
    assert len(sizes) <= 2


def test_auto_is_the_longest_context_that_fits(model, compiled, memory):
    for auto in ("auto", -1):
        memory(bytes_of(model, 4))
        found = fitted(model, max_model_len=auto)
        assert found.shapes.max_model_len == 3 * 16 and found.kv.num_pages == 4
        memory(2**33)
        assert fitted(model, max_model_len=auto).shapes.max_model_len == 128


def test_what_does_not_fit_says_which_length_would(model, compiled, memory):
    memory(bytes_of(model, 7))
    with pytest.raises(ConfigError, match=r"room for 96 tokens .*--max-model-len 96 or less, or"):
        fitted(model)
    assert fitted(model, max_model_len=96).kv.num_pages == 7
    memory(1000)
    with pytest.raises(ConfigError, match=r"room for 0 tokens .* a smaller --max-num-seqs or"):
        fitted(model, max_model_len="auto")


def test_a_smaller_step_that_was_named_fits(model, compiled, memory):
    memory(bytes_of(model, 9, steps=STEPS // 2))
    with pytest.raises(ConfigError, match="--max-num-batched-tokens, such as 24,"):
        fitted(model)
    assert fitted(model, max_num_batched_tokens=24).kv.num_pages >= 9


def test_what_was_asked_for_is_compared_with_what_is_free(model, compiled, monkeypatch):
    monkeypatch.setattr(fitting, "free_bytes", lambda mesh: bytes_of(model, 20))
    assert fitted(model, num_gpu_blocks_override=20).kv.num_pages == 20
    with pytest.raises(ConfigError, match=r"Pages, slots and steps need 0\.00 GiB"):
        fitted(model, num_gpu_blocks_override=21)


def test_one_line_says_who_has_the_memory(model, compiled, caplog):
    with caplog.at_level(logging.INFO, "engine.compiling.fitting"):
        fitted(model)
    [line] = [
        each.getMessage() for each in caplog.records if each.name == "engine.compiling.fitting"
    ]
    assert "pages 0.00" in line and "left" in line
    assert "1,024 tokens of cache, maximum concurrency for 128 tokens per request: 8.00x" in line


def test_what_xla_says_is_what_is_reserved(model):
    found = fitted(model)
    sizes = [program.temporary_bytes for program in found.programs.ready]
    copied = found.forks.temporary_bytes
    assert found.temporary_bytes == 2 * max(sizes) + copied and len(sizes) == 2
    assert min(sizes) > 0 and copied > 0
    found.programs.close()
