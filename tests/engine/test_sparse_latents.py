"""Index keys go wherever their pages go: the engine writes what transformers recorded."""

import pytest

from engine.config import EngineConfig
from engine.core import EngineCore
from tests.engine.conftest import run
from tests.parity.cases import CASES
from tests.parity.goldens import read
from tests.parity.paged import write_case

LONG = 64 + 19 - 1  # tokens of the golden, of which the last needs no page


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Nine pages of 16 tokens for two rows, which would have up to six each; and a host's."""
    folder = tmp_path_factory.mktemp("deepseek_v32")
    write_case(folder, CASES["deepseek_v32"], read("deepseek_v32"))
    core = EngineCore(
        EngineConfig(
            model=str(folder), max_num_seqs=2, max_num_batched_tokens=16, max_model_len=96,
            num_gpu_blocks_override=9 + 1, kv_offloading_size=0.001,
        )
    )  # fmt: skip
    yield core
    core.close()


def test_pages_found_fetched_and_lost_give_the_text_of_transformers(engine):
    golden = read("deepseek_v32")
    prompts = [golden.tokens[:19], golden.tokens[:36]]
    for turn in range(2):  # the second time beginnings are known, some of them on the host only
        texts = run(engine, prompts, max_tokens=LONG - 36, ignore_eos=True)
        for prompt, text in zip(prompts, texts, strict=True):
            assert text.ids == golden.tokens[len(prompt) :][: LONG - 36], (turn, len(prompt))
        others = [[7 + row, *golden.tokens[40:80]] for row in range(2)]
        run(engine, others, max_tokens=40, ignore_eos=True)
    stats = engine.stats
    assert stats.prefix_cache_hits > 0 and stats.external_prefix_cache_hits > 0
    assert stats.num_preemptions > 0


def test_a_page_has_room_for_its_index_keys(engine):
    rows, width = 3 * 16, 20 + 8 + 14  # layers and tokens; latent, rotary and index key
    assert engine.info.kv_cache_bytes == (9 + 1) * rows * width * 4
