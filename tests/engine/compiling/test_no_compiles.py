"""After the start nothing is compiled, whatever a thousand requests ask for."""

import threading

import jax
import jax.numpy as jnp
import numpy as np

from engine.messages import AddRequest
from engine.sampling.params import SamplingParams
from tests.engine.conftest import VOCAB

OF_THE_FRONT = {
    "n", "stop", "stop_regex", "bad_words", "detokenize", "skip_special_tokens",
    "spaces_between_special_tokens", "include_stop_str_in_output", "repetition_detection",
    "thinking_token_budget",  # the engine gets budgets; its tests see to it likewise
    "routed_experts_prompt_start",  # a number of the request; so do those of routed experts
    "extra_args",  # of logits processors, whose own tests see to it
    "structured_outputs",  # the engine gets grammars; its tests see to it that they compile nothing
}  # fmt: skip


def random_options(rng):
    """Every option that reaches the engine, each present or not."""
    options = {
        "temperature": rng.choice([0.0, 0.7, 1.5]),
        "top_k": int(rng.integers(0, 9)),
        "top_p": float(rng.uniform(0.1, 1)),
        "min_p": float(rng.choice([0, 0.1])),
        "presence_penalty": float(rng.uniform(-2, 2)),
        "frequency_penalty": float(rng.uniform(-2, 2)),
        "repetition_penalty": float(rng.choice([1, 1.3])),
        "seed": int(rng.integers(-9, 2**40)),
        "max_tokens": int(rng.integers(2, 7)),
        "min_tokens": int(rng.integers(0, 2)),
        "ignore_eos": bool(rng.integers(0, 2)),
        "logprobs": int(rng.integers(0, 20)),
        "logprob_token_ids": list({*rng.integers(0, VOCAB, rng.integers(1, 9)).tolist()}),
        "prompt_logprobs": int(rng.integers(0, 5)),
        "prompt_logprobs_start": int(rng.integers(0, 9)),
        "logit_bias": {int(token): 1.0 for token in rng.integers(0, VOCAB, rng.integers(1, 9))},
        "allowed_token_ids": rng.integers(0, VOCAB, rng.integers(1, 20)).tolist(),
        "watermarking": False,  # the other is only for engines that have one, as their tests do
        "stop_token_ids": rng.integers(0, VOCAB, rng.integers(0, 9)).tolist(),
    }
    return options


def random_request(rng, number):
    options = {name: v for name, v in random_options(rng).items() if rng.random() < 0.3}
    if "prompt_logprobs" not in options:
        options.pop("prompt_logprobs_start", None)
    if "logprob_token_ids" in options:
        options.pop("logprobs", None)
    words = rng.integers(0, VOCAB, (rng.integers(0, 3), rng.integers(1, 4)))
    return AddRequest(
        request_id=number,
        prompt_token_ids=rng.integers(0, VOCAB, rng.integers(1, 24)).tolist(),
        params=SamplingParams(**{"max_tokens": 3, **options}, bad_words=["a"] * min(1, len(words))),
        bad_word_ids=words.tolist(),
        cache_salt=str(rng.integers(0, 3)),
    )


def test_every_option_is_tried():
    names = set(random_options(np.random.default_rng(0)))
    assert names == set(SamplingParams.__struct_fields__) - OF_THE_FRONT


def test_a_thousand_requests_compile_nothing(core):
    """They come a few at a time; some are aborted."""
    rng = np.random.default_rng(3)
    compiled, before = [], core._runner.programs.num_unexpected_compiles
    here = threading.get_ident()  # engines of other tests may still compile in their threads

    def listen(event, duration, **_):
        if "backend_compile" in event and threading.get_ident() == here:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for number in range(1000):
            core.add(random_request(rng, number))
            if number % 50 == 49:
                core.abort([number])
            while len(core._scheduler.waiting) > rng.integers(0, 9):
                core.step()
        while core.has_work:
            core.step()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []
    assert core.stats.num_compiles_after_warmup == before


def test_a_compile_in_a_step_is_counted(core, caplog):
    programs = core._runner.programs
    before = programs.num_unexpected_compiles
    with programs.serving():
        jax.jit(lambda x: x * 3 + 1)(jnp.arange(7)).block_until_ready()
    assert programs.num_unexpected_compiles > before
    assert "a step compiled something" in caplog.text
