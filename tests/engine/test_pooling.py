"""Vectors through `LLM`: what folders say, what callers ask, and what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from engine import LLM, PoolingParams
from engine.errors import ConfigError, EngineError, RequestError
from engine.messages import PoolRequest
from models.checkpoints.sentence_transformers import read_sentence_transformer, score_activation
from models.errors import CheckpointError, UnsupportedError
from tests.engine.pooling_folders import write_folder, write_modules
from tests.parity.pooling_cases import CASES
from tests.parity.pooling_goldens import read

SMALL = {"max_num_seqs": 4, "max_num_batched_tokens": 64, "scheduling_policy": "priority"}
RAW = PoolingParams(use_activation=False)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = write_folder(
        tmp_path_factory.mktemp("embedder"), "bert", matryoshka_dimensions=[8, 16]
    )
    pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    write_modules(folder, pooling, "Normalize", max_seq_length=32, do_lower_case=True)
    with LLM(str(folder), **SMALL) as llm:
        yield llm


@pytest.fixture(scope="module")
def ranker(tmp_path_factory):
    folder = write_folder(tmp_path_factory.mktemp("ranker"), "bert_cross_encoder")
    with LLM(str(folder), **SMALL) as llm:
        yield llm


def test_a_folder_says_how_texts_become_vectors(embedder):
    case, golden = CASES["bert"], read("bert")
    # the fourth sequence has 17 tokens; none of these has more than the folder's 32
    inputs = [ids for ids in case.inputs() if len(ids) <= 32]
    expected = [v for v, ids in zip(golden.vectors, case.inputs(), strict=True) if len(ids) <= 32]
    found = embedder.encode(inputs)
    types = [each for each in case.types() if len(each) <= 32]
    assert len(found) == len(types) == len(expected)
    for output, ids in zip(found, inputs, strict=True):
        assert output.prompt_token_ids == ids and output.finished
        assert np.linalg.norm(output.outputs.data) == pytest.approx(1)
    assert embedder.info.max_model_len == 32


@pytest.mark.parametrize(
    "options", [{"dimensions": 2.5}, {"dimensions": "8"}, {"use_activation": 1}]
)
def test_params_of_other_types_are_refused(options):
    """Vectors are cut when all of a batch are there."""
    [name] = options
    with pytest.raises(RequestError, match=name) as caught:
        PoolingParams(**options)
    assert caught.value.param == name


def test_a_vector_that_is_no_number_is_an_error(embedder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.pooling.core.finish", lambda vector, *_: vector * np.nan)
        with pytest.raises(EngineError, match="no number"):
            embedder.embed("the dog sat")
    assert np.isfinite(embedder.embed("the dog sat")[0].outputs.embedding).all()


def test_threads_may_ask_at_once(embedder):
    texts = ["a", "the cat ran " * 3, "far away"] * 20
    want = [each.outputs.embedding for each in embedder.embed(texts)]
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(embedder.embed, texts) for _ in range(4)]
    for answer in answers:
        found = [each.outputs.embedding for each in answer.result()]
        np.testing.assert_allclose(found, want, rtol=0, atol=2e-7)


def test_equal_texts_have_equal_vectors_in_any_company(embedder):
    alone = embedder.embed("the dog sat on a mat")[0].outputs.embedding
    company = embedder.embed(["a", "the Dog SAT on a mat", "the cat ran " * 9, "far away"])
    np.testing.assert_allclose(company[1].outputs.embedding, alone, rtol=0, atol=2e-7)
    assert company[0].prompt_token_ids == [2, 9, 3]
    assert len(alone) == company[1].outputs.hidden_size == 40


def test_the_beginning_of_a_vector_is_one_where_the_model_says_so(embedder):
    whole = np.array(embedder.embed("the dog")[0].outputs.embedding)
    short = embedder.embed("the dog", pooling_params=PoolingParams(dimensions=8))[0]
    np.testing.assert_allclose(
        short.outputs.embedding, whole[:8] / np.linalg.norm(whole[:8]), atol=1e-6
    )
    raw = embedder.encode("the dog", RAW)[0].outputs.data
    np.testing.assert_allclose(raw / np.linalg.norm(raw), whole, atol=1e-6)
    with pytest.raises(RequestError, match="dimensions is 9; this model has 8, 16"):
        embedder.embed("the dog", pooling_params=PoolingParams(dimensions=9))


def test_who_is_more_urgent_goes_first(embedder):
    """Of equals, who came first."""
    core = embedder._core
    priorities = [5, 0, 5, -1, 5, 0]
    for number, priority in enumerate(priorities):
        core.add(
            PoolRequest(
                request_id=1000 + number, prompt_token_ids=[2] * 30, params=PoolingParams(),
                priority=priority,
            )
        )  # fmt: skip
    order = []
    while core.has_work:
        order += [delta.request_id - 1000 for delta in core.step().deltas]
    assert [sorted(order[i : i + 2]) for i in (0, 2, 4)] == [[1, 3], [0, 5], [2, 4]]


def test_long_texts_are_refused_or_cut(embedder):
    long = "the dog " * 40
    with pytest.raises(RequestError, match=r"82 tokens and this model takes 32.*-1"):
        embedder.embed("a " * 80)
    with pytest.raises(RequestError, match=r"320 characters.*32 tokens"):
        embedder.embed(long)
    cut = embedder.embed(long, truncate_prompt_tokens=-1)[0].prompt_token_ids
    assert len(cut) == 32 and cut[0] == 2 and cut[-1] == 3
    assert len(embedder.embed(long, truncate_prompt_tokens=7)[0].prompt_token_ids) == 7
    with pytest.raises(RequestError, match="from 1 to 32"):
        embedder.embed(long, truncate_prompt_tokens=33)
    with pytest.raises(RequestError, match="truncate_prompt_tokens must be an integer"):
        embedder.embed(long, truncate_prompt_tokens=2.5)


@pytest.mark.parametrize("prompt", ["", [], [67], [-1]])
def test_a_prompt_that_is_none_harms_nobody(embedder, prompt):
    with pytest.raises(RequestError):
        embedder.embed(["the dog", prompt])
    assert len(embedder.embed("the dog")) == 1


@pytest.mark.parametrize(
    "prompt",
    [{"prompt_embeds": [[0.0]]}, {"encoder_prompt": "the dog", "decoder_prompt": "the cat"}],
)
def test_what_has_no_vector_is_named(embedder, prompt):
    with pytest.raises(RequestError, match="a text or of token ids, and of one prompt"):
        embedder.embed(prompt)
    assert embedder.embed({"encoder_prompt": "the dog"})[0].outputs.embedding


def test_scores_are_cosines_of_embeddings(embedder):
    one, *others = embedder.embed(["a dog", "a cat", "far away"])
    scores = embedder.score("a dog", ["a cat", "far away"])
    expected = [float(np.dot(one.outputs.embedding, o.outputs.embedding)) for o in others]
    assert [s.outputs.score for s in scores] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(RequestError, match="2 texts cannot be paired with 3"):
        embedder.score(["a", "b"], ["a", "b", "c"])


def test_a_cross_encoder_reads_both_texts_at_once(ranker):
    forth, back = ranker.score(["a dog", "a cat"], ["a cat", "a dog"])
    assert 0 < forth.outputs.score < 1
    assert forth.prompt_token_ids == [2, 9, 5, 3, 9, 6, 3]
    assert forth.outputs.score != back.outputs.score
    ids = forth.prompt_token_ids
    [plain] = ranker.classify([ids])  # the same ids without types
    assert abs(plain.outputs.probs[0] - forth.outputs.score) > 1e-6


def test_the_longer_text_of_a_pair_is_cut(ranker):
    [output] = ranker.score("the dog", "a cat " * 20, truncate_prompt_tokens=10)
    assert output.prompt_token_ids == [2, 4, 5, 3, 9, 6, 9, 6, 9, 3]


def test_each_method_says_which_model_it_needs(embedder, ranker):
    with pytest.raises(RequestError, match="--convert embed"):
        ranker.embed("the dog")
    with pytest.raises(RequestError, match="gives embeddings and no classes"):
        embedder.classify("the dog")
    with pytest.raises(RequestError, match="use embed"):
        embedder.generate("the dog")


def test_a_classifier_gives_probabilities_and_without_its_head_vectors(tmp_path):
    folder = write_folder(tmp_path, "bert_classifier")
    with LLM(str(folder), **SMALL) as llm:
        [output] = llm.classify("the dog sat")
        assert sum(output.outputs.probs) == pytest.approx(1)
        assert llm.info.labels == ["joy", "anger", "awe"]
        logits = llm.encode("the dog sat", RAW)[0].outputs.data
        raised = np.exp(logits - logits.max())
        assert output.outputs.probs == pytest.approx((raised / raised.sum()).tolist(), abs=1e-6)
        with pytest.raises(RequestError, match="3 classes"):
            llm.score("the dog", "a cat")
    with LLM(str(folder), convert="embed", **SMALL) as llm:
        assert len(llm.embed("the dog sat")[0].outputs.embedding) == 40


def test_a_model_that_writes_gives_vectors_where_it_is_asked(tmp_path):
    with LLM("demo", runner="pooling", max_model_len=32, **SMALL) as llm:
        one, two = llm.embed(["The old dog", "The old dog ran away"])
        assert np.linalg.norm(one.outputs.embedding) == pytest.approx(1)
        assert llm.info.can_generate and one.outputs.embedding != two.outputs.embedding
    with pytest.raises(UnsupportedError, match="--convert classify needs"):
        LLM("demo", convert="classify")
    with pytest.raises(ConfigError, match="needs --runner pooling"):
        LLM("demo", runner="generate", convert="embed")
    write_folder(tmp_path, "bert")
    with pytest.raises(ConfigError, match="leave out --runner generate"):
        LLM(str(tmp_path), runner="generate")


@pytest.mark.parametrize(
    ("pooling", "kinds", "expected"),
    [
        ({"pooling_mode_cls_token": True}, (), ("CLS", False)),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, ("Normalize",), ("LAST", True)),
        ({"pooling_mode": "mean"}, ("Normalize",), ("MEAN", True)),
    ],
)
def test_poolings_that_folders_ask_for(tmp_path, pooling, kinds, expected):
    write_modules(tmp_path, pooling, *kinds)
    read = read_sentence_transformer(tmp_path)
    assert read is not None and (read.pooling, read.normalize) == expected


@pytest.mark.parametrize(
    ("pooling", "kinds", "sentence"),
    [
        ({"pooling_mode_max_tokens": True}, (), "pooling_mode_max_tokens"),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            (),
            "supported is one",
        ),
        ({"pooling_mode_cls_token": False}, (), "no pooling"),
        ({"pooling_mode_cls_token": True}, ("Dense",), "Dense"),
    ],
)
def test_modules_that_are_not_there_are_named(tmp_path, pooling, kinds, sentence):
    write_modules(tmp_path, pooling, *kinds)
    with pytest.raises(UnsupportedError, match=sentence):
        read_sentence_transformer(tmp_path)


def test_a_module_lies_in_the_folder(tmp_path):
    write_modules(tmp_path, {"pooling_mode_cls_token": True})
    entries = json.loads((tmp_path / "modules.json").read_text())
    entries[1]["path"] = "../../etc"
    (tmp_path / "modules.json").write_text(json.dumps(entries))
    with pytest.raises(CheckpointError, match="leaves the folder"):
        read_sentence_transformer(Path(tmp_path))


def test_what_is_done_to_scores():
    assert score_activation({}, 1) == "sigmoid"
    assert score_activation({}, 3) == "softmax"
    assert score_activation({"problem_type": "multi_label_classification"}, 3) == "sigmoid"
    assert score_activation({"problem_type": "regression"}, 1) == "identity"
    old = {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}
    assert score_activation(old, 1) == "identity"
    new = {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}}
    assert score_activation(new, 1) == "sigmoid"
    with pytest.raises(UnsupportedError, match="Tanh"):
        score_activation({"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}}, 1)
