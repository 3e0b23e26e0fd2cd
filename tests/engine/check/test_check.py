"""The parts of `ingot check`: traces, distances, and what a model can be asked by itself."""

from pathlib import Path

import numpy as np
import pytest

from engine.check.comparing import differences, first_parting
from engine.check.reference import NoReferenceError, load_reference
from engine.check.soundness import check_activations, check_template, check_tokens
from engine.check.trace import Trace, trace
from engine.tokenizers.tokenizer import Tokenizer
from models.checkpoints.converted import Made, write_made
from models.demo import DEMO_FOLDER
from tests.parity.cases import CASES
from tests.parity.encdec_cases import CASES as ENCODED
from tests.parity.encdec_cases import FOLDER, encoder_prompt, spectrogram
from tests.parity.goldens import read
from tests.parity.paged import load_case, write_case


@pytest.mark.parametrize(
    ("name", "shards"),
    [("llama3_2", 1), ("deepseek_v3", 2), ("bamba", 2), ("mamba", 1), ("opt_350m", 1)],
)
def test_a_trace_ends_in_the_logits_that_transformers_recorded(
    tmp_path: Path, name: str, shards: int
) -> None:
    golden, case = read(name), CASES[name]
    write_case(tmp_path, case, golden)
    traced = trace(load_case(tmp_path, case, shards), golden.tokens)
    np.testing.assert_allclose(traced.logits, golden.logits, atol=1e-4 * golden.scale)
    layers = case.config.get("num_hidden_layers", case.config.get("n_layer"))
    assert len(traced.states) == layers + 1
    assert list(traced.states)[-1] == f"layer {layers - 1}, normed"
    width = case.config.get("word_embed_proj_dim", traced.states["embedding"].shape[1])
    assert traced.states[f"layer {layers - 1}, normed"].shape[1] == width


@pytest.mark.parametrize("name", ["t5", "whisper"])
def test_a_trace_of_a_model_with_an_encoder_has_both(name: str, tmp_path: Path) -> None:
    golden, case = read(name, FOLDER), ENCODED[name]
    write_case(tmp_path, case, golden)
    source = spectrogram(case) if name == "whisper" else encoder_prompt(case)
    traced = trace(load_case(tmp_path, case), golden.tokens, source)
    np.testing.assert_allclose(traced.logits, golden.logits, atol=1e-4 * golden.scale)
    assert list(traced.states) == [
        "encoder's embedding", "encoder's layer 0", "encoder's layer 1, normed",
        "embedding", "layer 0", "layer 1", "layer 2, normed",
    ]  # fmt: skip
    assert check_activations(traced).text.startswith("finite in 5 layers")


def traced(scale: float = 1.0) -> Trace:
    states = {
        "embedding": np.ones((2, 3)),
        "layer 0, normed": scale * np.arange(1.0, 7).reshape(2, 3),
    }
    return Trace(states, np.arange(10.0).reshape(2, 5))


def test_distances_are_shares_of_the_deviation() -> None:
    rows = {row.name: row for row in differences(traced(1.1), traced())}
    assert rows["embedding"].within(0) and rows["logits"].within(0)
    row = rows["layer 0, normed"]
    assert row.largest == pytest.approx(0.6)
    assert row.relative == pytest.approx(0.6 / np.arange(6.0).std())
    assert row.within(0.36) and not row.within(0.35)


def test_what_has_no_counterpart_or_is_no_number_is_not_within_anything() -> None:
    other = Trace({"embedding": np.full((2, 3), np.nan)}, np.arange(12.0).reshape(2, 6))
    rows = {row.name: row for row in differences(traced(), other)}
    assert not rows["embedding"].within(1e30) and not rows["layer 0, normed"].within(1e30)


def test_the_first_token_that_differs_is_found() -> None:
    assert first_parting([1, 2, 3], [1, 2, 3]) is None
    assert first_parting([1, 2, 3], [1, 4, 3]) == 1
    assert first_parting([1, 2], [1, 2, 3]) == 2


def test_the_first_layer_that_gives_no_numbers_is_named() -> None:
    assert check_activations(traced()).verdict == "ok"
    found = check_activations(traced(1e309))
    assert found.verdict == "failed" and found.text.startswith("layer 0, normed: ")


def test_the_demo_is_sound_and_a_model_without_a_tokenizer_is_asked_nothing() -> None:
    tokenizer = Tokenizer.load(DEMO_FOLDER)
    assert check_tokens(tokenizer).verdict == "ok"
    assert check_template(tokenizer).verdict == "ok"
    assert check_tokens(None).verdict == check_template(None).verdict == "skipped"


def test_a_template_that_loses_what_was_said_fails() -> None:
    tokenizer = Tokenizer.load(DEMO_FOLDER)
    tokenizer.chat_templates = {"default": "{{ messages[0].role }}"}
    assert check_template(tokenizer).text == "what the user says is not in the prompt"
    tokenizer.chat_templates = {"default": "{{ messages[0].role "}
    assert check_template(tokenizer).verdict == "failed"


def test_what_was_converted_has_no_reference_of_its_own(tmp_path: Path) -> None:
    write_made(tmp_path, Made("float32", None, 1, "", ""))
    with pytest.raises(NoReferenceError, match="check the model it was made of"):
        load_reference(tmp_path)
