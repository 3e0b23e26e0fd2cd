"""Models with an encoder in the engine: one batch, shared pages, preemption, refusals."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from engine import LLM, BeamSearchParams, SamplingParams
from engine.config import EngineConfig
from engine.core import EngineCore
from engine.errors import ConfigError, RequestError
from engine.messages import AddRequest
from tests.engine.conftest import Text, few_programs
from tests.parity.encdec_cases import CASES, FOLDER, encoder_prompt, spectrogram
from tests.parity.goldens import read
from tests.parity.paged import write_case

GREEDY = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    made = {}
    for name in ("bart", "t5"):
        made[name] = tmp_path_factory.mktemp(name)
        write_case(made[name], CASES[name], read(name, FOLDER))
    return made


@pytest.fixture(scope="module")
def llm(folders):
    """T5 with room for 4 rows."""
    with pytest.MonkeyPatch.context() as patch:
        few_programs(patch)
        one = LLM(str(folders["t5"]), max_num_seqs=4, max_num_batched_tokens=16, max_model_len=96)
    with one:
        one.core.wait_for_programs()
        yield one


def test_the_engine_writes_what_transformers_wrote(folders) -> None:
    golden, source = read("bart", FOLDER), encoder_prompt(CASES["bart"])
    engine = EngineCore(
        EngineConfig(model=str(folders["bart"]), max_num_seqs=2, max_num_batched_tokens=16)
    )
    try:
        assert engine.info.decoder_prompt == [2, 0]
        texts = {}
        for length in (3, 19, 30):
            engine.add(
                AddRequest(
                    request_id=length, prompt_token_ids=golden.tokens[:length],
                    encoder_token_ids=source, params=GREEDY,
                )
            )  # fmt: skip
            texts[length] = Text()
            engine.step()
        while engine.has_work:
            for delta in engine.step().deltas:
                texts[delta.request_id].add(delta)
        for length in (19, 30):
            assert texts[length].ids == golden.tokens[length : length + 30]
    finally:
        engine.close()


def test_a_decoder_begins_with_its_start_token(llm: LLM) -> None:
    one = SamplingParams(max_tokens=1)
    [output] = llm.generate({"prompt_token_ids": [5, 6]}, one)
    assert (output.prompt_token_ids, output.encoder_prompt_token_ids) == ([0], [5, 6])
    for own, expected in (([0, 3], [0, 3]), ([3], [0, 3]), (None, [0])):
        prompt = {"encoder_prompt": [5, 6], "decoder_prompt": own}
        assert llm.generate(prompt, one)[0].prompt_token_ids == expected


def text_of(llm: LLM, encoder: list[int], own: list[int] | None = None) -> list[int]:
    prompt = {"encoder_prompt": encoder, "decoder_prompt": own}
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    return llm.generate(prompt, params)[0].outputs[0].token_ids


def test_rows_with_inputs_of_their_own_write_what_each_writes_alone(llm: LLM) -> None:
    inputs = [[(7 * i + k) % 67 for i in range(3 + 17 * k)] for k in range(5)]
    alone = [text_of(llm, each) for each in inputs]
    assert len({tuple(each) for each in alone}) > 1
    params = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
    together = llm.generate([{"prompt_token_ids": each} for each in inputs], params)
    assert [each.outputs[0].token_ids for each in together] == alone


def test_a_prefix_is_shared_only_behind_the_same_input(llm: LLM) -> None:
    own = [0, *range(2, 40)]
    prompts = [{"encoder_prompt": [*range(k, k + 20)], "decoder_prompt": own} for k in (0, 20)]
    fresh, again = [[llm.generate(each, GREEDY)[0] for each in prompts] for _ in range(2)]
    assert [each.num_cached_tokens for each in fresh] == [0, 0]
    assert all(each.num_cached_tokens >= 32 for each in again)
    texts = [[each.outputs[0].token_ids for each in some] for some in (fresh, again)]
    assert texts[0] == texts[1] and texts[0][0] != texts[0][1]


def count_encodings(llm: LLM, monkeypatch) -> list[bool]:
    """Whether each input that comes from now on was found in pages."""
    runner, seen = llm.core._runner, []
    original = runner._encoders.run

    def run(leaves, state, slot, encoder):
        seen.append(encoder.found)
        return original(leaves, state, slot, encoder)

    monkeypatch.setattr(runner._encoders, "run", run)
    return seen


def test_samples_and_beams_of_one_prompt_encode_it_once(llm: LLM, monkeypatch) -> None:
    seen = count_encodings(llm, monkeypatch)
    prompt = {"prompt_token_ids": [9, 8, 7, 6, 5, 4, 3] * 5}
    params = SamplingParams(n=4, seed=1, max_tokens=5)
    llm.generate(prompt, params)
    assert seen == [False, True, True, True]
    llm.beam_search(prompt, BeamSearchParams(beam_width=2, max_tokens=4))
    assert not any(not found for found in seen[1:])


def test_salts_do_not_share(llm: LLM, monkeypatch) -> None:
    seen = count_encodings(llm, monkeypatch)
    for salt in ("a", "b", "a"):
        llm.generate({"prompt_token_ids": [11] * 20, "cache_salt": salt}, GREEDY)
    assert seen == [False, False, True]


@pytest.mark.parametrize("caching", [True, False])
def test_preempted_requests_go_on_as_if_nothing_had_been(folders, llm: LLM, caching) -> None:
    inputs = [[(5 * i + k) % 67 for i in range(30)] for k in range(3)]
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    prompts = [{"prompt_token_ids": each} for each in inputs]
    expected = [each.outputs[0].token_ids for each in llm.generate(prompts, params)]
    with LLM(
        str(folders["t5"]), max_num_seqs=3, max_num_batched_tokens=16, max_model_len=64,
        num_gpu_blocks_override=12, block_size=16, enable_prefix_caching=caching,
    ) as small:  # fmt: skip
        found = small.generate(prompts, params)
        assert small.core.stats.num_preemptions > 0
        assert small.core.stats.num_free_pages == 11
    assert [each.outputs[0].token_ids for each in found] == expected


def test_the_pages_of_an_aborted_request_are_free(llm: LLM) -> None:
    engine = llm.core
    free = engine.stats.num_free_pages
    ids = range(1000, 1006)  # more than there are rows
    for number in ids:
        engine.add(
            AddRequest(
                request_id=number, prompt_token_ids=[0], encoder_token_ids=[4] * 40, params=GREEDY
            )
        )
    engine.step()
    assert engine.stats.num_free_pages < free
    engine.abort(ids)
    engine.step()
    assert engine.stats.num_free_pages == free and not engine.has_work


def test_what_cannot_be_read_is_refused(llm: LLM) -> None:
    with pytest.raises(RequestError, match="97 tokens and this model's encoder reads up to 96"):
        llm.generate({"prompt_token_ids": [5] * 97})
    with pytest.raises(RequestError, match="67, which is no id"):
        llm.generate({"prompt_token_ids": [67]})
    with pytest.raises(RequestError, match="encoder is empty"):
        llm.generate({"prompt_token_ids": []})
    with pytest.raises(RequestError, match="nothing else"):
        llm.generate({"encoder_prompt": [1], "prompt": "x"})


def test_models_without_an_encoder_refuse_prompts_for_one(core) -> None:
    with pytest.raises(RequestError, match="no encoder"):
        core.add(
            AddRequest(request_id=0, prompt_token_ids=[5], encoder_token_ids=[5], params=GREEDY)
        )


def test_it_runs_on_one_device(folders) -> None:
    with pytest.raises(Exception, match="one device; use --tensor-parallel-size 1"):
        EngineCore(EngineConfig(model=str(folders["bart"]), tensor_parallel_size=2))


def test_a_pool_too_small_for_encoder_and_decoder_is_refused(folders) -> None:
    with pytest.raises(ConfigError, match="--max-model-len 32 or less"):
        EngineCore(
            EngineConfig(
                model=str(folders["t5"]), max_model_len=64, num_gpu_blocks_override=6, block_size=16
            )
        )


def test_an_encoder_that_hears_writes_what_transformers_wrote(tmp_path: Path) -> None:
    case, golden = CASES["whisper"], read("whisper", FOLDER)
    write_case(tmp_path, case, golden)
    engine = EngineCore(
        EngineConfig(model=str(tmp_path), max_num_seqs=2, max_num_batched_tokens=16)
    )
    features, text = spectrogram(case).astype("<f4").tobytes(), Text()
    message = AddRequest(
        request_id=0, prompt_token_ids=golden.tokens[:19], encoder_features=features, params=GREEDY
    )
    try:
        engine.add(message)
        while engine.has_work:
            for delta in engine.step().deltas:
                text.add(delta)
        assert text.ids == golden.tokens[19:49]
        with pytest.raises(RequestError, match="82 frames of 6 float32, 1968 bytes"):
            engine.add(replace(message, encoder_features=features[:-4]))
        with pytest.raises(RequestError, match="hears audio"):
            engine.add(replace(message, encoder_features=b"", encoder_token_ids=[4]))
    finally:
        engine.close()


def test_models_that_read_hear_nothing(llm: LLM) -> None:
    with pytest.raises(RequestError, match="hears no audio"):
        llm.core.add(
            AddRequest(
                request_id=0, prompt_token_ids=[0], encoder_token_ids=[5], encoder_features=b"1",
                params=GREEDY,
            )
        )  # fmt: skip
