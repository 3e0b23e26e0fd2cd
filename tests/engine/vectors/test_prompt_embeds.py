"""Prompts of embeddings: what is taken, and that rows of the table give what their ids give."""

from base64 import b64encode
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from engine.beams.params import BeamSearchParams
from engine.calls import Call, Loop
from engine.compiling.shapes import Shapes
from engine.config import EngineConfig
from engine.cores import make_core as find_core
from engine.errors import ConfigError, RequestError
from engine.grammar.process import GrammarProcess
from engine.messages import AddRequest, ModelInfo
from engine.output_processor import OutputProcessor
from engine.profiling.profiler import Profiler
from engine.prompts import as_prompt
from engine.sampling.params import SamplingParams
from engine.vectors.given_rows import resolve_given
from engine.vectors.prompt_embeds import GIVEN, decode, rows_of
from models.registry import find_architecture
from tests.engine.conftest import VOCAB, Text, make_core
from tests.models.checkpoints.safetensors_files import write_safetensors
from tests.models.torch_file.torch_files import archive, storage, text, view
from tests.parity.dense_cases import DENSE

INFO = ModelInfo(
    architecture="A", vocab_size=9, max_model_len=8, num_parameters=1, eos_token_ids=[],
    max_num_seqs=1, num_pages=1, page_size=16, load_seconds=0, compile_seconds=0,
    dtype="bfloat16", prompt_embeds_size=4,
)  # fmt: skip
ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
HALVES = ROWS.astype(ml_dtypes.bfloat16)
FLOATS = storage("FloatStorage", "0", 12)
GREEDY = {"temperature": 0, "max_tokens": 24, "ignore_eos": True, "logprobs": 2}


def encoded(tmp_path: Path, pickled: bytes) -> str:
    archive(tmp_path / "x.pt", b"\x80\x02" + pickled + b".", {"0": ROWS.tobytes()})
    return b64encode((tmp_path / "x.pt").read_bytes()).decode()


def test_tensors_are_read_from_either_format(tmp_path: Path) -> None:
    for shape, strides in (((3, 4), (4, 1)), ((1, 3, 4), (12, 4, 1))):
        rows = decode(encoded(tmp_path, view(FLOATS, 0, shape, strides)), INFO)
        np.testing.assert_array_equal(rows, HALVES)
        assert rows.dtype == HALVES.dtype
    columns = decode(encoded(tmp_path, view(FLOATS, 0, (2, 4), (1, 2))), INFO)
    np.testing.assert_array_equal(columns, HALVES.reshape(6, 2)[:4].T)
    write_safetensors(tmp_path / "y", {"any": HALVES})
    content = b64encode((tmp_path / "y").read_bytes()).decode()
    np.testing.assert_array_equal(decode(content, INFO), HALVES)


@pytest.mark.parametrize(
    ("pickled", "message"),
    [
        (view(FLOATS, 0, (4, 3), (3, 1)), r"shape \(4, 3\); this model takes \[tokens, 4\]"),
        (view(FLOATS, 0, (12,), (1,)), r"shape \(12,\)"),
        (view(FLOATS, 0, (2**30, 4), (0, 0)), "1073741824 rows; this model's context holds 8"),
        (view(FLOATS, 0, (0, 4), (4, 1)), "at least one row"),
        (view(storage("LongStorage", "0", 6), 0, (1, 4), (4, 1)), "holds int64"),
        (b"}" + text("a") + view(FLOATS, 0, (3, 4), (4, 1)) + b"s", "is a dict and no tensor"),
        (b"cposix\nsystem\n(" + text("true") + b"tR", "'posix.system'"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path: Path, pickled: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        decode(encoded(tmp_path, pickled), INFO)
    assert raised.value.param == "prompt_embeds" and str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("é", "no base64"), ("QUJ", "no base64"), ("QUJD", "no tensor"), ("", "no tensor"),
     ("gASV", "no tensor"), (b64encode(b"PK\x03\x04").decode(), "malformed")],
)  # fmt: skip
def test_what_is_no_file_is_refused(content: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as raised:
        decode(content, INFO)
    assert "/tmp" not in str(raised.value)


def test_arrays_and_lists_become_rows_of_the_models_numbers() -> None:
    for value in (ROWS, ROWS.tolist(), ROWS.astype(int).tolist(), ROWS.astype(np.float64)[None]):
        rows = rows_of(value, INFO)
        np.testing.assert_array_equal(rows, HALVES)
    for value, message in (
        ([[1.0, 2.0, 3.0, float("nan")]], "row 0 that is not finite"),
        (np.vstack([ROWS, np.full((1, 4), 1e39)]), "row 3 that is not finite in bfloat16"),
        ([[1.0, 2.0], [3.0]], "no array of numbers"),
        (ROWS.astype(int), "holds int64"),
        ("abc", "holds <U3"),
    ):
        with pytest.raises(RequestError, match=message):
            rows_of(value, INFO)


def test_models_that_need_tokens_or_write_none_are_named(tiny_folder: Path) -> None:
    raw = DENSE["gemma3n"].config
    config = EngineConfig(model=str(tiny_folder), enable_prompt_embeds=True)
    with pytest.raises(ConfigError, match="cannot serve Gemma3nForCausalLM, for each of its lay"):
        resolve_given(config, find_architecture(raw).config(raw), Shapes(1, 8, 8, 16), "float32")
    for name in ("enable_prompt_embeds", "enable_return_hidden_states"):
        settings = {"model": str(tiny_folder), "runner": "pooling", name: True}
        with pytest.raises(ConfigError, match="for models that write text"):
            find_core(EngineConfig(**settings))


@pytest.fixture(scope="module")
def core(tiny_folder):
    """Four rows, and pages for two of them at most."""
    engine = make_core(tiny_folder, enable_prompt_embeds=True, num_gpu_blocks_override=12)
    engine.wait_for_programs()
    yield engine
    assert engine.stats.num_compiles_after_warmup == 0
    engine.close()


@pytest.fixture(scope="module")
def table(core) -> np.ndarray:
    return np.asarray(core.model.layout.unflatten(core.model.leaves).embedding[...])


def run(core, prompts, *, salt="", apart=0, **options) -> list[Text]:
    """Continue prompts, each ids or an array."""
    texts = [Text() for _ in prompts]
    params = SamplingParams(**GREEDY | options)

    def step() -> None:
        for delta in core.step().deltas:
            texts[delta.request_id].add(delta)

    for number, prompt in enumerate(prompts):
        given = isinstance(prompt, np.ndarray)
        message = AddRequest(
            request_id=number, params=params, cache_salt=salt,
            prompt_token_ids=[GIVEN] * len(prompt) if given else prompt,
            prompt_embeds=prompt.tobytes() if given else b"",
        )  # fmt: skip
        core.add(message)
        for _ in range(apart):
            step()
    while core.has_work:
        step()
    return texts


def prompts_of(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(3, VOCAB, length).tolist() for length in lengths]


def same(first: list[Text], second: list[Text]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.ids == other.ids
        scores = [[entry.logprobs for entry in text.logprobs] for text in (one, other)]
        np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)


@pytest.mark.parametrize("length", [1, 33, 70])
def test_rows_of_the_table_give_what_their_ids_give(core, table, length: int) -> None:
    """33 tokens are a whole step and one token, which a decode program computes."""
    [ids] = prompts_of(length)
    same(run(core, [ids], salt="a"), run(core, [table[ids]], salt="a"))


@pytest.mark.parametrize("apart", [0, 1, 3])
def test_both_kinds_share_steps_and_are_preempted(core, table, apart: int) -> None:
    prompts = prompts_of(30, 18, 39, 20)
    alone = [run(core, [ids], salt="b", max_tokens=60)[0] for ids in prompts]
    mixed = [ids if place % 2 else table[ids] for place, ids in enumerate(prompts)]
    together = run(core, mixed, salt=f"c{apart}", apart=apart, max_tokens=60)
    assert together[2].preemptions  # whose prompt is embeddings
    same(alone, together)


def test_pages_are_found_behind_the_same_embeddings_only(core, table) -> None:
    [ids] = prompts_of(48)
    other = table[ids].copy()
    other[40] += 0.5
    fresh = run(core, [table[ids]], salt="d", max_tokens=4)[0]
    hits = core.stats.prefix_cache_hits
    assert run(core, [other], salt="d", max_tokens=4)[0].logprobs != fresh.logprobs
    assert core.stats.prefix_cache_hits == hits
    same([fresh], run(core, [table[ids]], salt="d", max_tokens=4))
    assert core.stats.prefix_cache_hits >= hits + 32
    hits = core.stats.prefix_cache_hits
    for prompt, salt in ((ids, "d"), (table[ids], "e")):
        same([fresh], run(core, [prompt], salt=salt, max_tokens=4))
    assert core.stats.prefix_cache_hits == hits


def test_embeddings_count_as_no_tokens(core, table) -> None:
    [ids] = prompts_of(20)
    changed = {"presence_penalty": 1.5, "bad_words": ["a"], "min_tokens": 3}
    same(run(core, [ids], **changed), run(core, [table[ids]], **changed))
    first = [run(core, [table[ids]], repetition_penalty=each, max_tokens=1) for each in (1.0, 2.0)]
    same(*first)


def test_samples_of_a_prompt_share_what_came_once(core, table) -> None:
    [ids] = prompts_of(20)
    params = SamplingParams(**GREEDY | {"n": 3})
    messages = OutputProcessor(None).add(
        "r", [GIVEN] * 20, params, prompt_embeds=table[ids].tobytes()
    )
    assert [bool(each.prompt_embeds) for each in messages] == [True, False, False]
    texts = {each.request_id: Text() for each in messages}
    for message in messages:
        core.add(message)
    while core.has_work:
        for delta in core.step().deltas:
            texts[delta.request_id].add(delta)
    same([*texts.values()], run(core, [ids]) * 3)
    with pytest.raises(RequestError, match="were refused"):
        core.add(messages[1])


def test_callers_in_python_give_arrays(core, table, tiny_folder) -> None:
    [ids] = prompts_of(20)
    loop = Loop(core, None, GrammarProcess(tiny_folder, core.info), Profiler(None))
    with Call(loop) as call:
        for prompt in ({"prompt_embeds": table[ids], "cache_salt": "f"}, ids):
            call.add(as_prompt(prompt), SamplingParams(**GREEDY))
        list(call.deltas())
        given, plain = call.outputs.values()
        assert given.outputs[0].token_ids == plain.outputs[0].token_ids
        assert (given.prompt, given.prompt_token_ids) == (None, [])
        with pytest.raises(RequestError, match=r"takes \[tokens, 32\]"):
            call.add(as_prompt({"prompt_embeds": ROWS}), SamplingParams())
    with pytest.raises(RequestError, match='"cache_salt" and nothing else'):
        as_prompt({"prompt_embeds": ROWS, "prompt": "a"})
    with pytest.raises(RequestError, match="give a text or ids"):
        as_prompt({"prompt_embeds": ROWS}).token_ids(None)


def test_what_needs_tokens_is_refused(core, table) -> None:
    with pytest.raises(RequestError, match="prompt_logprobs"):
        run(core, [table[[5, 6]]], prompt_logprobs=1)
    with pytest.raises(RequestError, match=r"not 2 rows of 32"):
        run(core, [table[[5, 6], :16]])
    beams = BeamSearchParams(beam_width=2, max_tokens=2)
    with pytest.raises(RequestError, match="leave out use_beam_search"):
        OutputProcessor(None).add("r", [GIVEN], SamplingParams(), prompt_embeds=b"0", beams=beams)
