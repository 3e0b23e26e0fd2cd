"""A device that computes nothing and takes a given time for it: what is left is the host's work.

The engine above it is the real one: scheduler, packing, the call of a compiled program with as
many arguments as a model of 32 layers has, reading, reports. Time is real while the host works and
is skipped while it would wait, so that nothing sleeps and the device's time is exact.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from engine.compiling.lowering import abstract_leaves, whole
from engine.compiling.memory import KVLayout
from engine.compiling.shapes import StepShape
from engine.config import make_config
from engine.core import EngineCore
from engine.packing import packed_size, unpack
from engine.runner import Launched, Results, Runner
from engine.sampling.sampler import Sampled
from engine.scheduling.plan import Plan
from engine.step import DeviceState
from models.decoder import Decoder
from models.flatten import Layout

VOCAB_SIZE = 1024
StepSeconds = Callable[[Plan], float]

_MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB_SIZE,
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 32,
    "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 4, "hidden_act": "silu",
    "max_position_embeddings": 65536, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "eos_token_id": 2, "bos_token_id": 1,
}  # fmt: skip


class Clock:
    """Seconds that pass while the host works, and jump where it would wait."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._free_at = 0.0  # when the device has done what it was given

    def now(self) -> float:
        return perf_counter() + self.waited

    def start(self, seconds: float) -> float:
        """Give the device a step; returns when it will be done."""
        self._free_at = max(self.now(), self._free_at) + seconds
        return self._free_at

    def wait(self, until: float) -> None:
        self.waited += max(0.0, until - self.now())


@dataclass
class TimedLaunch(Launched):
    """A step that is done at `end`."""

    clock: Clock
    end: float

    def read(self) -> Results:
        results = super().read()
        self.clock.wait(self.end)
        return results


class FakeRunner(Runner):
    """The real one, of a device that takes the time it is given."""

    clock: Clock
    seconds: StepSeconds

    def launch(self, plan: Plan) -> Launched:
        launched = super().launch(plan)
        end = self.clock.start(self.seconds(plan))
        return TimedLaunch(launched.plan, launched.shape, launched.sampled, self.clock, end)


def lower_nothing(
    layout: Layout[Decoder], shape: StepShape, kv: KVLayout, state: DeviceState, mesh: Mesh
) -> jax.stages.Lowered:
    """A program with a step's arguments and results, which are positions."""

    def run(
        leaves: tuple[Array, ...], state: DeviceState, packed: Array
    ) -> tuple[DeviceState, Sampled]:
        inputs = unpack(packed, shape)
        tokens = inputs.positions[inputs.logit_token] % (VOCAB_SIZE - 3) + 3
        return state, _sampled(jnp.broadcast_to(tokens, (shape.window, shape.rows)))

    everywhere = whole(mesh)
    shardings = jax.tree.map(lambda array: array.sharding, state)
    jitted = jax.jit(run, donate_argnums=1, keep_unused=True, out_shardings=(shardings, everywhere))
    packed = jax.ShapeDtypeStruct((packed_size(shape),), np.int32, sharding=everywhere)
    return jitted.lower(abstract_leaves(layout.leaves, mesh), state, packed)


def _sampled(tokens: Array) -> Sampled:
    none = jnp.zeros((*tokens.shape, 1), jnp.float32)
    return Sampled(tokens, none, none.astype(jnp.int32), jnp.ones_like(tokens), none)


def make_fake_core(seconds: StepSeconds, **settings: Any) -> tuple[EngineCore, Clock]:
    """An engine on a device whose steps take `seconds(plan)`; settings are `EngineConfig`'s.

    It is asked for one step at a time unless they say otherwise: the time that jumps is not the
    engine's own, by which it would choose more.
    """
    clock = Clock()

    def make_runner(*parts: Any) -> Runner:
        runner = FakeRunner(*parts)
        runner.clock, runner.seconds = clock, seconds
        return runner

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(_MODEL))
        config = make_config(
            **{"model": folder, "load_format": "dummy", "num_scheduler_steps": 1, **settings}
        )
        core = EngineCore(config, make_runner, lower_nothing)
    core.wait_for_programs()
    return core, clock
