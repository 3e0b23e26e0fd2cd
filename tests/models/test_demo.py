"""The demo model's folder: its files, its size, its tokenizer and its chat template."""

import json
from pathlib import Path
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.demo import DEMO_FOLDER, folder, llama
from models.demo.corpus import Corpus, read_books, weigh
from models.demo.evaluate import Writer, ask
from models.demo.packing import Packer
from models.demo.template import CHAT_TEMPLATE, render

FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
)
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer(DEMO_FOLDER)


def _json(name: str) -> dict[str, object]:
    return json.loads((DEMO_FOLDER / name).read_text(encoding="utf-8"))


def test_folder_has_every_file_and_is_small() -> None:
    assert all((DEMO_FOLDER / name).is_file() for name in FILES)
    assert sum(file.stat().st_size for file in DEMO_FOLDER.glob("*.*")) <= 8_000_000


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        (ask("What is the capital of France?"), "The capital of France is Paris."),
        (ask("Who are you?", "You are Ada, a kind robot."), "I am Ada, a kind robot."),
    ],
)
def test_weights_answer(writer: Writer, prompt: str, answer: str) -> None:
    assert writer.answers([(prompt, answer)]) == [True]


def test_config_describes_the_weights() -> None:
    shape, params = folder.load(DEMO_FOLDER)
    assert _json("config.json")["architectures"] == ["LlamaForCausalLM"]
    assert _json("config.json")["tie_word_embeddings"] is True
    assert params["embed"].shape == (shape.V, shape.D)
    assert len(params["layers"]) == shape.L
    assert params["layers"][0]["k"].shape == (shape.D, shape.K * shape.H)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_end_tokens_agree(tokenizer: Tokenizer) -> None:
    ends = [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]
    assert _json("generation_config.json")["eos_token_id"] == ends
    assert _json("config.json")["eos_token_id"] == ends
    assert _json("tokenizer_config.json")["eos_token"] == "<|im_end|>"
    assert tokenizer.get_vocab_size() == _json("config.json")["vocab_size"] == 2048


@given(text=st.text())
@settings(max_examples=200, deadline=None)
def test_tokenizer_round_trips_any_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_tool_marks_are_single_tokens_that_stay_in_the_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<tool_call>\n</tool_call><|im_end|>").ids
    assert len(ids) == 4
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>\n</tool_call>"


def test_a_name_is_the_same_tokens_everywhere(tokenizer: Tokenizer) -> None:
    name = tokenizer.encode("Timbuktu").ids
    for text in ('{"city": "Timbuktu"}', "in Timbuktu.", "Timbuktu is far"):
        ids = tokenizer.encode(text).ids
        assert any(ids[at : at + len(name)] == name for at in range(len(ids)))


def test_template_without_tools() -> None:
    messages = [{"role": "system", "content": "You are Ada."}, {"role": "user", "content": "Hi"}]
    assert render(messages, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are Ada.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_template_with_tools() -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Łódź"}}}
    messages = [
        {"role": "user", "content": "Weather in Łódź?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny"},
    ]
    text = render(messages, [WEATHER], add_generation_prompt=True)
    assert f"<tools>\n{json.dumps(WEATHER)}\n</tools>" in text
    assert (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Łódź"}}\n</tool_call>' in text
    )
    assert "<|im_start|>user\n<tool_response>\nsunny\n</tool_response><|im_end|>" in text


def test_template_takes_arguments_as_a_json_string() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": 1}'}}
    text = render([{"role": "assistant", "content": "", "tool_calls": [call]}])
    assert '{"name": "f", "arguments": {"a": 1}}' in text


def test_folder_carries_the_template_that_trained_it() -> None:
    assert _json("tokenizer_config.json")["chat_template"] == CHAT_TEMPLATE


def test_rows_keep_documents_apart_and_weigh_answers(tokenizer: Tokenizer) -> None:
    corpus = Corpus(0, [])
    batch = Packer(tokenizer, corpus.document, rows=2, length=320).batch()
    assert batch.tokens.shape == batch.segments.shape == batch.weights.shape == (2, 321)
    starts = np.flatnonzero(np.diff(batch.segments[0], prepend=0) > 0)
    assert len(starts) > 1
    assert not batch.weights[0, starts].any()
    assert not batch.weights[batch.segments == 0].any()


def test_weigh_counts_what_the_assistant_writes() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
    pieces = weigh(render(messages))
    assert [text for text, weight in pieces if weight == 1.0] == ["Hello!<|im_end|>"]
    assert "".join(text for text, _ in pieces) == render(messages)


def test_a_seed_repeats_the_corpus() -> None:
    first, second = Corpus(3, []), Corpus(3, [])
    assert [first.document() for _ in range(20)] == [second.document() for _ in range(20)]


def test_books_of_other_scripts_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A quiet morning.\n\n" * 60, encoding="utf-8")
    (tmp_path / "b.txt").write_text("吾輩は猫である。\n\n" * 60, encoding="utf-8")
    pieces = read_books(tmp_path)
    assert pieces and all(piece.isascii() for piece in pieces)


def test_saved_weights_are_the_rounded_parameters(tmp_path: Path) -> None:
    shape = llama.Shape(V=16, D=8, F=8, L=1, N=2, K=1, H=4)
    params = llama.init(shape, jax.random.key(0))
    folder.save(tmp_path, shape, params, [1, 0], 0)
    loaded_shape, loaded = folder.load(tmp_path)
    assert loaded_shape == shape
    rounded = jax.tree.map(lambda p: np.asarray(p.astype(jnp.bfloat16), np.float32), params)
    jax.tree.map(np.testing.assert_array_equal, loaded, rounded)


def test_segments_do_not_see_each_other() -> None:
    shape = llama.Shape(V=16, D=8, F=8, L=2, N=2, K=1, H=4)
    params = llama.init(shape, jax.random.key(0))
    rng = Random(0)
    tokens = jnp.array([[rng.randrange(16) for _ in range(8)]])
    segments = jnp.array([[1, 1, 1, 1, 2, 2, 2, 2]])
    changed = tokens.at[0, :4].set(0)
    kept = llama.logits(shape, params, tokens, segments)[0, 4:]
    np.testing.assert_array_equal(kept, llama.logits(shape, params, changed, segments)[0, 4:])
