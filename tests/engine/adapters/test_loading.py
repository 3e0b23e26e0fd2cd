"""Engines whose requests have adapters: every text is the one that its adapter alone would give."""

import shutil
import threading

import pytest

from engine import LLM, LoRARequest
from engine.adapters import loading
from engine.beams.core import BeamCore
from engine.beams.params import BeamSearchParams
from engine.errors import ConfigError, RequestError
from engine.messages import AddBeams, AddRequest, StepReport
from engine.sampling.params import SamplingParams
from models.errors import CheckpointError, UnsupportedError
from tests.engine.conftest import CONFIG, Text, make_core
from tests.models.checkpoints.adapter_folders import halves, write_adapter

D, F = CONFIG["hidden_size"], CONFIG["intermediate_size"]
SHAPES = {
    f"model.layers.{layer}.{name}.weight": shape
    for layer in range(CONFIG["num_hidden_layers"])
    for name, shape in {
        "self_attn.q_proj": (D, D), "self_attn.v_proj": (D // 2, D), "self_attn.o_proj": (D, D),
        "mlp.gate_proj": (F, D), "mlp.down_proj": (D, F),
    }.items()
}  # fmt: skip
PATIENCE = 60.0  # seconds
PROMPT = [5, 6, 7, 8] * 5


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> list[LoRARequest]:
    folder, found = tmp_path_factory.mktemp("adapters"), []
    for number, name in enumerate("abc", 1):
        rank = 2 + number % 3
        path = write_adapter(folder / name, halves(SHAPES, rank, number), rank, lora_alpha=3 * rank)
        found.append(LoRARequest(name, number, str(path)))
    return found


@pytest.fixture(scope="module")
def llm(tiny_folder):
    """Two slots, and as many adapters in the host."""
    settings = {"load_format": "dummy", "max_num_seqs": 4, "max_num_batched_tokens": 32, "seed": 1}
    with LLM(str(tiny_folder), enable_lora=True, max_loras=2, max_lora_rank=4, **settings) as made:
        yield made


@pytest.fixture(scope="module")
def core(llm):
    return llm.core


def run(core, loras, prompt=PROMPT, **more) -> list[Text]:
    texts = [Text() for _ in loras]
    params = SamplingParams(temperature=0, max_tokens=9, ignore_eos=True)
    for number, lora in enumerate(loras):
        core.add(
            AddRequest(request_id=number, prompt_token_ids=prompt, params=params, lora=lora, **more)
        )
    while core.has_work:
        for delta in core.step().deltas:
            texts[delta.request_id].add(delta)
        used = {r.lora for r in core._scheduler.running if r.lora}
        assert len(used) <= 2
    return texts


def test_each_row_has_its_own_adapter_and_nothing_is_compiled(core, adapters):
    """More adapters than slots: some wait for theirs."""
    a, b, c = adapters
    mix = [a, b, None, c, a, None]
    together = [text.ids for text in run(core, mix, cache_salt="mix")]
    alone = [run(core, [lora], cache_salt=f"alone {n}")[0].ids for n, lora in enumerate(mix)]
    assert together == alone
    assert len({tuple(ids) for ids in together}) == 4
    assert core.stats.num_compiles_after_warmup == 0


def test_prompts_under_two_adapters_share_no_page(core, adapters):
    a, b, _ = adapters
    prompt = [9, 8, 7, 6] * 5
    hits = []
    for lora in (a, b, None, a, LoRARequest("a", 77, a.lora_path), b, None):
        before = core._scheduler.prefix_hits
        run(core, [lora], prompt)
        hits.append(core._scheduler.prefix_hits - before)
    assert hits[:3] == [0] * 3 and hits[4] == 0
    assert min(hits[3], *hits[5:]) > 0


def test_beams_have_the_adapter_of_their_request(core, adapters):
    beams = BeamCore(core)
    params = BeamSearchParams(beam_width=2, max_tokens=5, ignore_eos=True)
    found = {}
    for number, lora in enumerate((None, adapters[0])):
        ids = [2 * number, 2 * number + 1]
        beams.add(AddBeams(request_ids=ids, prompt_token_ids=PROMPT, params=params, lora=lora))
    while beams.has_work:
        found |= {d.request_id: d.new_token_ids for d in beams.step().deltas}
    assert found[0] != found[2]


def test_a_folder_that_is_gone_ends_its_own_requests_only(core, adapters, tmp_path):
    """It was read, and two others since, which are as many as the host keeps."""
    a, b, c = adapters
    gone = LoRARequest("gone", 5, str(tmp_path / "gone"))

    def read_and_lose():
        folder = shutil.copytree(a.lora_path, gone.lora_path)
        core.check_adapter(gone)
        for other in (a, b, c, a, b):
            run(core, [other])
        shutil.rmtree(folder)

    expected = run(core, [b, None], cache_salt="before")
    read_and_lose()
    texts = run(core, [gone, b, gone, None], cache_salt="after")
    assert [text.finish_reason for text in texts] == ["error", "length", "error", "length"]
    assert [texts[1].ids, texts[3].ids] == [text.ids for text in expected]
    [again] = run(core, [gone])
    assert again.finish_reason == "error"
    with pytest.raises(RequestError, match=r"has no adapter_config\.json"):
        core.check_adapter(gone)
    read_and_lose()
    beams, ended = BeamCore(core), []
    params = BeamSearchParams(beam_width=2, max_tokens=5)
    beams.add(AddBeams(request_ids=[1, 2], prompt_token_ids=PROMPT, params=params, lora=gone))
    while beams.has_work:
        ended += beams.step().deltas
    assert [(d.request_id, d.finish_reason) for d in ended] == [(1, "error"), (2, "error")]


@pytest.fixture
def slow_disk(monkeypatch) -> threading.Event:
    """Adapters are read once this is set."""
    ready, read = threading.Event(), loading.read_adapter
    monkeypatch.setattr(
        loading, "read_adapter", lambda *given: ready.wait(PATIENCE) and read(*given)
    )
    return ready


def steps(core, number: int) -> list[StepReport]:
    return [core.step() for _ in range(number)]


def test_texts_go_on_while_adapters_are_read(core, adapters, slow_disk):
    """One by the operator's wish, and one that a request needs and the host no longer has."""
    a, _, c = adapters
    new, bad = LoRARequest("new", 11, a.lora_path), LoRARequest("bad", 12, "/nowhere")
    core._adapters._host.clear()
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    for number, lora in enumerate((None, c)):
        core.add(AddRequest(request_id=number, prompt_token_ids=PROMPT, params=params, lora=lora))
    core.load_adapter(1, new)
    core.load_adapter(2, bad)
    before = steps(core, 30)
    said = [delta.request_id for report in before for delta in report.deltas]
    assert said.count(0) >= 20 and 1 not in said
    assert not any(report.answers for report in before)
    slow_disk.set()
    after, answers = [], {}
    while core.has_work:
        report = core.step()
        after += [delta.request_id for delta in report.deltas]
        answers |= {each.call_id: each.error for each in report.answers}
    assert 1 in after and answers[1] is None
    assert "/nowhere has no adapter_config.json" in answers[2]
    assert core.stats.num_compiles_after_warmup == 0


def test_an_engine_that_reads_an_adapter_waits_for_no_disk(core, adapters, slow_disk):
    """Neither for one that a request needs which is aborted, nor at its end."""
    gone = LoRARequest("c", 13, adapters[2].lora_path)
    core.add(AddRequest(request_id=1, prompt_token_ids=PROMPT, params=SamplingParams(), lora=gone))
    steps(core, 3)
    core.abort([1])
    assert not core.has_work
    assert all(t.daemon for t in threading.enumerate() if t.name == "ingot-adapter")
    slow_disk.set()


@pytest.mark.parametrize("path", ["/" + "a" * 5000, "~nobody-of-this-name/a"])
def test_a_path_that_is_none_is_refused_and_the_engine_goes_on(core, path):
    with pytest.raises(RequestError, match=r"File name too long|no adapter_config\.json"):
        core.check_adapter(LoRARequest("a", 9, path))


def test_of_adapters_that_come_and_go_few_are_remembered(core, adapters, monkeypatch):
    """Each load has an id of its own, so a server that runs for months sees any number of them."""
    monkeypatch.setattr(loading, "MAX_KNOWN", 5)
    known = core._adapters
    path = adapters[0].lora_path
    for number in range(100, 120):
        known.check(LoRARequest("a", number, path))
    assert [each.lora_int_id for each in known._known] == list(range(115, 120))
    assert (
        len(known._host) <= 2
        and not known._loads
        and not known.slots._users.keys() - {*known.slots._slots}
    )


def test_what_cannot_be_served_is_said(tiny_folder, adapters, tmp_path):
    with pytest.raises(RequestError, match="lora_int_id must be at least 1"):
        LoRARequest("a", 0, "b")
    with pytest.raises(ConfigError, match="--lora-modules needs --enable-lora"):
        make_core(tiny_folder, lora_modules=(adapters[0],))
    with pytest.raises(ConfigError, match="--max-cpu-loras 1 is below --max-loras 2"):
        make_core(tiny_folder, enable_lora=True, max_loras=2, max_cpu_loras=1)
    nowhere = LoRARequest("a", 1, str(tmp_path))
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        make_core(tiny_folder, enable_lora=True, lora_modules=(nowhere,))
    with pytest.raises(UnsupportedError, match="has rank 4 and --max-lora-rank is 3"):
        make_core(tiny_folder, enable_lora=True, max_lora_rank=3, lora_modules=tuple(adapters))


def test_an_llm_takes_a_request_for_all_prompts_or_one_for_each(llm, adapters):
    a, b, _ = adapters
    params = SamplingParams(temperature=0, max_tokens=5, ignore_eos=True)

    def ids(outputs):
        return [output.outputs[0].token_ids for output in outputs]

    [one] = ids(llm.generate([PROMPT], params, lora_request=a))
    [two] = ids(llm.generate([PROMPT], params, lora_request=[b]))
    [plain] = ids(llm.generate([PROMPT], params))
    each = ids(llm.generate([PROMPT] * 3, params, lora_request=[b, None, a]))
    assert each == [two, plain, one] and len({*map(tuple, each)}) == 3
    stream = llm.stream(PROMPT, params, lora_request=a)
    assert [token for delta in stream for token in delta.token_ids] == one
    with pytest.raises(RequestError, match="2 lora_requests were given for 1 prompts"):
        llm.generate([PROMPT], params, lora_request=[a, b])
