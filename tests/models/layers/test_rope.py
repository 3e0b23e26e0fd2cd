"""Frequencies of every scaling, the rotation, and how config.json spells them."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from models.config.fields import Fields
from models.config.rope import read_rope
from models.errors import CheckpointError, ModelError, UnsupportedError
from models.layers.rope import Linear, RopeConfig, Unscaled, rotate, rotation

CONTEXT = 131072
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def read(scaling: dict[str, Any] | None, head_dim: int = 128, **others: Any) -> RopeConfig:
    raw = {"max_position_embeddings": CONTEXT, "rope_theta": 500000.0, "rope_scaling": scaling}
    return read_rope(Fields({**raw, **others}), head_dim)


def frequencies(rope: RopeConfig, context: int = CONTEXT) -> np.ndarray:
    return rope.scaling.frequencies(rope.dim, rope.theta, context)


def plain(head_dim: int = 128, theta: float = 500000.0) -> np.ndarray:
    return theta ** -(np.arange(0, head_dim, 2) / head_dim)


def test_without_scaling_pair_i_turns_theta_to_minus_2i_over_r() -> None:
    np.testing.assert_allclose(frequencies(read(None)), plain(), rtol=1e-6)


def test_proportional_turns_the_first_pairs_as_fast_as_if_all_turned() -> None:
    rope = read({"rope_type": "proportional", "partial_rotary_factor": 0.25, "factor": 2.0})
    turning, still = np.split(frequencies(rope), [16])
    np.testing.assert_allclose(turning, plain()[:16] / 2, rtol=1e-6)
    assert rope.dim == 128 and not still.any()


def test_linear_scaling_divides_positions() -> None:
    scaled, unscaled = RopeConfig(8, scaling=Linear(4.0)), RopeConfig(8)
    positions = jnp.arange(0, 40, 4, dtype=jnp.int32)
    for a, b in zip(
        rotation(scaled, positions, 64), rotation(unscaled, positions // 4, 64), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_dynamic_scaling_begins_where_the_context_exceeds_the_trained_one() -> None:
    rope = read({"type": "dynamic", "factor": 4.0}, max_position_embeddings=2048)
    np.testing.assert_allclose(frequencies(rope, 2048), plain(), rtol=1e-6)
    longer = frequencies(rope, 4096)
    assert longer[0] == 1
    assert longer[-1] == pytest.approx(plain()[-1] / 5.0, rel=1e-4)  # 4 * 2 - 3


def test_llama3_keeps_fast_pairs_and_divides_slow_ones() -> None:
    ratio = frequencies(read(LLAMA3)) / plain()
    turns = 8192 * plain() / (2 * math.pi)
    np.testing.assert_allclose(ratio[turns > 4], 1, rtol=1e-5)
    np.testing.assert_allclose(ratio[turns < 1], 1 / 8, rtol=1e-5)
    assert np.all(np.diff(ratio) <= 1e-6)


def test_yarn_keeps_fast_pairs_divides_slow_ones_and_lengthens_vectors() -> None:
    rope = read(YARN)
    ratio = frequencies(rope) / plain()
    turns = 32768 * plain() / (2 * math.pi)
    np.testing.assert_allclose(ratio[turns > 40], 1, rtol=1e-5)
    np.testing.assert_allclose(ratio[turns < 0.8], 1 / 4, rtol=1e-5)
    assert rope.scaling.magnitude == pytest.approx(0.1 * math.log(4) + 1)


@pytest.mark.parametrize(
    ("settings", "magnitude"),
    [
        ({"attention_factor": 1.5}, 1.5),
        ({"mscale": 0.7, "mscale_all_dim": 0.7}, 1.0),
        ({"mscale": 1.0}, 0.1 * math.log(4) + 1),
    ],
)
def test_yarn_magnitude_may_be_stated(settings: dict[str, float], magnitude: float) -> None:
    assert read({**YARN, **settings}).scaling.magnitude == pytest.approx(magnitude)


def test_longrope_chooses_its_factors_by_the_context() -> None:
    short, long = [1.0 + i for i in range(4)], [2.0 + i for i in range(4)]
    scaling = {"type": "longrope", "short_factor": short, "long_factor": long}
    rope = read(scaling, 8, original_max_position_embeddings=4096)
    np.testing.assert_allclose(frequencies(rope, 4096), plain(8) / short, rtol=1e-6)
    np.testing.assert_allclose(frequencies(rope, 4097), plain(8) / long, rtol=1e-6)
    assert rope.scaling.magnitude == pytest.approx(math.sqrt(1 + math.log(32) / math.log(4096)))


def test_scores_depend_on_distance_only() -> None:
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(rng.normal(size=(1, 2, 16)), jnp.float32) for _ in range(2))

    def score(query: int, key: int) -> np.ndarray:
        at = [rotation(RopeConfig(16), jnp.array([p], jnp.int32), 64) for p in (query, key)]
        return np.asarray((rotate(q, at[0]) * rotate(k, at[1])).sum(-1))

    np.testing.assert_allclose(score(7, 3), score(27, 23), rtol=1e-4)
    assert not np.allclose(score(7, 3), score(8, 3), rtol=1e-2)


def test_partial_rotation_passes_the_other_dimensions() -> None:
    rope = read(None, 16, partial_rotary_factor=0.75)
    assert rope.dim == 12
    x = jnp.ones((1, 1, 16), jnp.bfloat16)
    turned = rotate(x, rotation(rope, jnp.array([5], jnp.int32), 64))
    assert turned.dtype == jnp.bfloat16
    assert not np.allclose(turned[..., :12], 1)
    np.testing.assert_array_equal(turned[..., 12:], 1)


def test_the_newer_layout_means_the_same() -> None:
    newer = read(None, rope_theta=None, rope_parameters={**LLAMA3, "rope_theta": 500000.0})
    assert newer == read(LLAMA3)
    assert read(None, rope_parameters={"rope_type": "default"}) == read(None)
    assert read(None) == RopeConfig(128, 500000.0, Unscaled())


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_an_unknown_scaling_is_refused_with_those_there_are(key: str) -> None:
    with pytest.raises(UnsupportedError, match=r"'mrope'.*default.*yarn.*llama3.*longrope"):
        read({key: "mrope"})


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"type": "linear"}, "no factor"),
        ({"type": "linear", "factor": math.nan}, "factor is nan"),
        ({"type": "dynamic", "factor": -1}, "factor is -1"),
        ({"type": "dynamic", "factor": True}, "factor is True"),
        ({**LLAMA3, "high_freq_factor": 1.0}, "high_freq_factor is 1"),
        ({**YARN, "original_max_position_embeddings": 1}, "original_max_position_embeddings is 1"),
        ({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}, "a list of 64"),
        ({"type": "longrope", "short_factor": [0.0] * 64}, "short_factor is 0.0"),
        ({"type": 3}, "a string"),
        ([1], "a JSON object"),
    ],
)
def test_absurd_settings_are_errors(scaling: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(scaling)


def test_an_odd_number_of_rotated_dimensions_is_an_error() -> None:
    with pytest.raises(ModelError, match="even"):
        read(None, 16, partial_rotary_factor=0.7)
