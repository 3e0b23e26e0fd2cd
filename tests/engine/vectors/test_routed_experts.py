"""Routed experts of requests: those that transformers takes, and each token's once."""

import numpy as np
import pytest

from engine import LLM, SamplingParams
from engine.errors import ConfigError, RequestError
from engine.messages import EngineStats, RequestDelta, StepReport
from engine.output_processor import OutputProcessor
from engine.vectors.routed_rows import RoutedRows
from tests.engine.conftest import few_programs, make_core
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.paged import write_case

NAME = "qwen2_moe"  # of whose three layers the first is dense


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp(NAME)
    write_case(made, CASES[NAME], read(NAME))
    return made


@pytest.fixture(scope="module")
def llm(folder):
    """Two rows, steps of 16 tokens, windows of four, and pages for hardly more than one request."""
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        made = LLM(
            str(folder), enable_return_routed_experts=True, max_num_seqs=2, dtype="float32",
            max_num_batched_tokens=16, max_model_len=112, num_gpu_blocks_override=9,
        )  # fmt: skip
        made.core.wait_for_programs()
    with made:
        yield made
        assert made.core.stats.num_compiles_after_warmup == 0


def generate(llm, prompts, **options):
    params = SamplingParams(**{"temperature": 0, "ignore_eos": True, "max_tokens": 1, **options})
    found = llm.generate(prompts, params, use_tqdm=False)
    return [(each.outputs[0].token_ids, each.outputs[0].routed_experts) for each in found]


@pytest.fixture(scope="module")
def answers(llm):
    """Tokens, and experts [tokens - 1, 3, 3], of two requests of which one is preempted."""
    tokens = read(NAME).tokens
    prompts = [tokens[:40], tokens[5:35]]
    before = llm.core.stats.num_preemptions
    found = generate(llm, prompts, max_tokens=60)
    assert llm.core.stats.num_preemptions > before
    return [(prompt + ids, experts) for prompt, (ids, experts) in zip(prompts, found, strict=True)]


@pytest.mark.parity
def test_experts_are_those_of_transformers(folder, answers) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for tokens, experts in answers:
        with torch.inference_mode():
            given = model(torch.tensor([tokens[:-1]]), output_router_logits=True)
        logits = np.stack([each.numpy() for each in given.router_logits], axis=1)  # [T, 2, E]
        expected = np.sort(np.argsort(logits, axis=-1)[..., -3:])
        np.testing.assert_array_equal(np.sort(experts[:, 1:]), expected)


def test_every_token_but_the_last_has_a_row(llm, answers) -> None:
    """In chunks, turns and after a preemption the same as of a prompt that is read at once."""
    for tokens, experts in answers:
        assert experts.shape == (len(tokens) - 1, 3, 3) and experts.dtype == np.uint8
        assert not experts[:, 0].any() and experts[:, 1:].max() == 5
        [(_, again)] = generate(llm, [tokens])
        np.testing.assert_array_equal(np.sort(again[:-1]), np.sort(experts))


def test_from_its_start_on_what_the_cache_has_is_computed_again(llm, answers) -> None:
    tokens, experts = answers[0]
    hits = llm.core.stats.prefix_cache_hits
    [(_, whole)] = generate(llm, [tokens[:60]])
    assert llm.core.stats.prefix_cache_hits == hits
    [(_, rest)] = generate(llm, [tokens[:60]], routed_experts_prompt_start=50)
    assert llm.core.stats.prefix_cache_hits > hits
    for start, told in ((0, whole), (50, rest)):
        np.testing.assert_array_equal(np.sort(told), np.sort(experts[start:60]))
    [(_, none)] = generate(llm, [tokens[:60]], routed_experts_prompt_start=60)
    assert none is None


def test_pieces_add_up(llm, answers) -> None:
    params = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
    pieces = [p.routed_experts for p in llm.stream(answers[1][0][:30], params)]
    told = np.concatenate([each for piece in pieces for each in piece or ()])
    np.testing.assert_array_equal(np.sort(told), np.sort(answers[1][1][: 30 + 8]))


def test_rows_behind_the_end_that_the_front_finds_are_dropped() -> None:
    """Tokens 7 7 7 are one circle too many; the engine was told of none."""
    processor = OutputProcessor(None)
    repeats = {"max_pattern_size": 1, "min_count": 3}
    params = SamplingParams(max_tokens=9, repetition_detection=repeats)
    [message] = processor.add("a", [5, 6], params, routed=RoutedRows(1, 2, "uint16"))
    assert message.routed_from == 0
    rows = np.arange(12, dtype=np.uint16).reshape(6, 1, 2)
    delta = RequestDelta(
        request_id=message.request_id, new_token_ids=[7, 7, 7, 7, 8], routed_experts=rows.tobytes()
    )  # fmt: skip
    [output] = processor.process(StepReport(stats=EngineStats(), deltas=[delta])).outputs
    assert output.token_ids == [7, 7, 7]
    np.testing.assert_array_equal(np.concatenate(output.routed_experts), rows[:4])


def test_what_cannot_be_told_is_refused_by_name(llm, folder, tiny_folder) -> None:
    with pytest.raises(ConfigError, match="LlamaForCausalLM, which has no mixture"):
        make_core(tiny_folder, enable_return_routed_experts=True)
    settings = {"enable_return_routed_experts": True, "load_format": "dummy"}
    with pytest.raises(ConfigError, match="cannot be used with --speculative-config"):
        LLM(str(folder), speculative_config={"num_speculative_tokens": 2}, **settings)
    with pytest.raises(ConfigError, match="is for models that write text"):
        LLM(str(tiny_folder), runner="pooling", **settings)
    with pytest.raises(RequestError, match="routed_experts_prompt_start 4 is beyond"):
        generate(llm, [[5, 6, 7]], routed_experts_prompt_start=4)
    params = SamplingParams(routed_experts_prompt_start=1)
    with pytest.raises(RequestError, match="needs the setting --enable-return-routed-experts"):
        OutputProcessor(None).add("a", [5, 6], params)
