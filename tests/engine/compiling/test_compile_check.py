"""The engine's steps, compiled for an H200 that is not there; reports name what is wrong."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from engine.cache.host_tier import HostTier
from engine.cache.page_copies import PageCopies, _put
from engine.cache.page_forks import PageForks
from engine.compiling.compile_check import (
    SHAPES,
    Failure,
    Report,
    check_model,
    check_step,
    main,
    published_config,
)
from engine.compiling.lowering import abstract_state, compiler_options
from engine.compiling.memory import resolve_layout, resolve_pages
from engine.config import make_config
from models.config.published import PUBLISHED
from models.registry import find_architecture
from models.sharding import TENSOR
from pallas_kernels.deviceless import compile_for_target, load_target, missing_plugin

needs_plugin = pytest.mark.skipif(missing_plugin() is not None, reason=missing_plugin() or "")
SOUND = Report(
    model="m", step="decode 64 rows", devices=1, command_buffers=1, outside={}, loops=0,
    launches=9, in_branches=0, copies={}, aliased_gib=1.0, temporary_mib=1.0, weights_gib=1.0,
    room_gib=1.0, room_for_tokens=0, spilled_bytes=0, gib_moved=1.0, roofline_ms=1.0,
    lower_seconds=1.0, compile_seconds=1.0,
)  # fmt: skip


@needs_plugin
def test_steps_on_eight_devices_have_no_faults():
    """Of one device `python -m engine.compiling.compile_check` compiles a whole model's."""
    target = load_target("h200")
    reports = list(check_model("llama-3.1-8b", 2, target, target.mesh(TENSOR, 8)))
    assert [report.step for report in reports] == ["decode 64 rows", "mixed 1920 tokens"]
    for report in reports:
        assert report.faults == []
        assert report.aliased_gib > 2 / 8  # keys and values of 64 contexts, in place


@needs_plugin
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"window": 4}, "decode 64 rows, 4 steps"),
        ({"processed_logprobs": True}, "decode 64 rows"),
    ],
)
def test_other_steps_are_one_graph_too(change, name):
    target = load_target("h200")
    shape = dataclasses.replace(SHAPES.decode()[-1], **change)
    config = published_config("llama-3.1-8b", 2)
    report = check_step("m", config, shape, target, target.mesh(TENSOR, 1))
    assert (report.step, report.faults) == (name, [])
    assert report.aliased_gib > 2


@needs_plugin
def test_a_pool_that_fills_the_memory_costs_no_launches(monkeypatch):
    target = load_target("h200")
    mesh = target.mesh(TENSOR, 1)
    small = next(check_model("llama-3.1-8b", 2, target, mesh))
    monkeypatch.setattr(
        "engine.compiling.compile_check.SHAPES", dataclasses.replace(SHAPES, max_model_len=2**17)
    )
    large = next(check_model("llama-3.1-8b", 2, target, mesh))
    assert small.faults == large.faults == []
    assert large.aliased_gib > 60 > small.aliased_gib
    assert large.launches == small.launches
    assert 0 < large.room_for_tokens < 2**24


@needs_plugin
@pytest.mark.parametrize("quantization", ["fp8", "gptq"])
def test_packed_weights_are_not_written_in_more_bits(quantization):
    target = load_target("h200")
    mesh = target.mesh(TENSOR, 1)
    decode = next(check_model("llama-3.1-8b", 1, target, mesh, quantization=quantization))
    assert isinstance(decode, Report) and decode.faults == []


@needs_plugin
@pytest.mark.parametrize("dtype", ["auto", "fp8", "int8_per_token_head"])
def test_copies_of_pages_leave_the_pool_where_it_is(dtype):
    mesh = load_target("h200").mesh(TENSOR, 1)
    config = published_config("llama-3.1-8b", 2)
    settings = make_config(num_gpu_blocks_override=16384, kv_cache_dtype=dtype)
    kv = resolve_layout(settings, config, SHAPES, mesh, jnp.bfloat16)
    kv = resolve_pages(settings, kv, SHAPES, mesh, None)
    cache = abstract_state(kv, SHAPES, config.vocab_size, mesh).cache
    forks = PageForks(cache, kv.num_layers, mesh)
    copies = PageCopies(HostTier(1), cache, kv.num_layers, mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    pair = jax.ShapeDtypeStruct((2, 8), jnp.int32, sharding=whole)
    ids = jax.ShapeDtypeStruct((8,), jnp.int32, sharding=whole)
    put = jax.jit(_put, donate_argnums=0, out_shardings=(copies._device, whole))
    for lowered in (
        lambda: forks._fork.lower(cache, pair),
        lambda: put.lower(cache, ids, (copies._page,) * 8),
    ):
        memory = compile_for_target(lowered, compiler_options(mesh)).executable.memory_analysis()
        assert memory.alias_size_in_bytes > 2**26
        assert memory.temp_size_in_bytes < 2**23


@pytest.mark.parametrize(
    "change, fault",
    [
        ({}, None),
        ({"copies": {"copy bf16[8,4]": 2}}, "m, decode 64 rows: writes 2 x copy bf16[8,4]"),
        ({"spilled_bytes": 8}, "m, decode 64 rows: kernels spill 8 bytes of registers"),
        ({"command_buffers": 2}, "2 CUDA graphs, 0 loops and nothing outside"),
        ({"outside": {"Copy": 1}}, "1 CUDA graphs, 0 loops and {'Copy': 1} outside"),
        ({"loops": 3}, "1 CUDA graphs, 3 loops and nothing outside"),
        ({"command_buffers": 5, "devices": 8}, None),
        ({"room_gib": -0.5, "temporary_mib": 512.0}, "temporaries take 1.5 of the 1.0 GiB of a"),
    ],
)
def test_faults_are_sentences(change, fault):
    faults = dataclasses.replace(SOUND, **change).faults
    assert len(faults) == (fault is not None)
    assert all(fault in found for found in faults)


def test_what_does_not_compile_is_a_fault():
    assert Failure("m", "decode 1 rows", "KernelError: no").faults == [
        "m, decode 1 rows: does not compile: KernelError: no"
    ]


def test_every_published_model_has_an_architecture():
    for name, raw in PUBLISHED.items():
        assert find_architecture(raw).config(raw).num_layers == raw["num_hidden_layers"], name


@pytest.mark.skipif(missing_plugin() is None, reason="a CUDA plugin is installed")
def test_without_a_plugin_the_command_says_what_to_install(capsys):
    assert main(["--layers", "1"]) == 2
    assert "ingot[deviceless]" in capsys.readouterr().err
