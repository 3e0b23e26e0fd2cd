"""Reading values of config.json, and what a ModelConfig derives from them."""

import math
from dataclasses import replace
from typing import Any

import pytest

from models.config.decoder import LayerKind, ModelConfig
from models.config.fields import Fields
from models.errors import CheckpointError, UnsupportedError

CONFIG = ModelConfig(
    architecture="LlamaForCausalLM",
    vocab_size=32,
    hidden_size=16,
    intermediate_size=48,
    num_heads=12,
    num_kv_heads=4,
    head_dim=8,
    max_position_embeddings=64,
    context_length=64,
    layer_kinds=(LayerKind(),) * 2,
)


@pytest.mark.parametrize("value", [None, True, 1.0, "8", 0, -3, 2**60, math.nan, [8], {}])
def test_an_integer_is_a_positive_whole_number(value: Any) -> None:
    assert Fields({"size": 8}).integer("size") == 8
    with pytest.raises(CheckpointError, match="size"):
        Fields({"size": value}).integer("size")


@pytest.mark.parametrize("value", [None, True, "1", 0, -1.0, math.nan, math.inf, 1e30, [1.0]])
def test_a_number_is_finite_and_positive(value: Any) -> None:
    assert Fields({"eps": 1}).number("eps") == 1.0
    with pytest.raises(CheckpointError, match="eps"):
        Fields({"eps": value}).number("eps")


@pytest.mark.parametrize("value", [1, 0, "true", []])
def test_a_flag_is_a_boolean(value: Any) -> None:
    assert Fields({"tied": None}).flag("tied", True) is True
    with pytest.raises(CheckpointError, match="tied"):
        Fields({"tied": value}).flag("tied", True)


def test_token_ids_are_one_or_several_or_none() -> None:
    assert Fields({"eos": 2}).token_ids("eos") == (2,)
    assert Fields({"eos": [2, 0]}).token_ids("eos") == (2, 0)
    assert Fields({"eos": None}).token_ids("eos") == ()
    for value in (-1, [True], ["</s>"], 2**40):
        with pytest.raises(CheckpointError, match="eos"):
            Fields({"eos": value}).token_ids("eos")


def test_an_option_out_of_the_known_names_them() -> None:
    with pytest.raises(UnsupportedError, match=r"act is 'mish'.*silu, gelu"):
        Fields({"act": "mish"}).option("act", ("silu", "gelu"))
    with pytest.raises(UnsupportedError, match="'chunked'"):
        Fields({"types": ["full", "chunked"]}).options("types", 2, ("full", "sliding"))
    with pytest.raises(CheckpointError, match="a list of 3"):
        Fields({"types": ["full"]}).options("types", 3, ("full",))


def test_options_in_use_that_are_not_there_are_refused() -> None:
    Fields({"a": None, "b": False}).refuse("a", "b", "c")
    with pytest.raises(UnsupportedError, match="a is True"):
        Fields({"a": True}).refuse("a")


def test_a_message_stays_short() -> None:
    with pytest.raises(CheckpointError) as error:
        Fields({"size": "x" * 10000}).integer("size")
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(("shards", "heads"), [(1, 4), (2, 4), (4, 4), (12, 12)])
def test_kv_heads_are_divided_or_repeated(shards: int, heads: int) -> None:
    assert CONFIG.cache_kv_heads(shards) == heads


@pytest.mark.parametrize("shards", [3, 5, 6, 8, 24])
def test_a_size_that_does_not_divide_names_those_that_do(shards: int) -> None:
    with pytest.raises(UnsupportedError, match=r"these sizes do: 1, 2, 4, 12\."):
        CONFIG.check_shards(shards)


def test_heads_must_be_a_multiple_of_kv_heads() -> None:
    with pytest.raises(CheckpointError, match="multiple"):
        replace(CONFIG, num_kv_heads=5)


def test_a_window_as_wide_as_the_context_is_none() -> None:
    assert [CONFIG.visible(window) for window in (None, 63, 64)] == [None, 63, None]


def test_the_scale_of_scores_follows_the_head_dim_unless_stated() -> None:
    assert CONFIG.score_scale == 8**-0.5
    assert replace(CONFIG, attention_scale=1.0).score_scale == 1.0


def test_a_file_may_call_keys_by_other_names() -> None:
    fields = Fields({"n_embd": 8, "act": "mish"}, names={"width": "n_embd", "activation": "act"})
    assert "width" in fields
    assert fields.integer("width") == 8
    assert fields.replaced("width", 9).integer("width") == 9
    assert fields.completed("width", 9).integer("width") == 8
    with pytest.raises(UnsupportedError, match="act is 'mish'"):
        fields.option("activation", ("silu",))
    with pytest.raises(CheckpointError, match="n_embd is 8"):
        fields.integer("width", high=4)


def test_an_option_that_must_be_on() -> None:
    Fields({"a": True, "b": None}).required("a")
    Fields({}).required("a")
    with pytest.raises(UnsupportedError, match=r"a is False.*use true"):
        Fields({"a": False}).required("a")
