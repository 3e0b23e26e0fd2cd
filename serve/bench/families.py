"""`ingot bench families`: whether each family of models decodes as fast as a dense one of its size.

One engine for each, all alive at once, which take turns: a machine is not equally fast at all
times, so that a family is compared with the first in the same round, and what is printed is the
middle of those ratios, and whether it is small enough. Weights are dummies in float32, which take
as long as any.
"""

import json
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.table import Table

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.errors import ConfigError
from engine.messages import AddRequest, ModelInfo
from engine.sampling.params import SamplingParams
from serve.bench.family_shapes import FAMILIES, Config, Count, Size, count

_PROMPT = 2  # tokens, different in each row: those of all are one step
_OTHERS = 4  # steps of a turn that do not count: the prompts, those beside them, and the last
_MILLION = 1e6
_MOST = 1.15  # times the first family's seconds for each parameter are as fast as it
_VERDICTS = {True: "yes", False: "no", None: ""}


@dataclass(frozen=True)
class Work:
    """How many rows decode at a time, how many steps make a turn, and how many turns count."""

    rows: int = 8
    steps: int = 32
    rounds: int = 9


@dataclass(frozen=True)
class Runner:
    """A family's engine, and what a step of it moves."""

    core: EngineCore
    count: Count

    def turn(self, work: Work, seed: int) -> float:
        """Seconds of a decode step, on average: one that was late makes the next one short."""
        for request in _requests(work, self.core.info, seed):
            self.core.add(request)
        ends = []
        while self.core.has_work:
            self.core.step()
            ends.append(perf_counter())
        first, last = _OTHERS // 2, len(ends) - 1 - _OTHERS // 2
        return (ends[last] - ends[first]) / (last - first)


def measure_families(
    size: Size, work: Work, names: Sequence[str] = tuple(FAMILIES)
) -> dict[str, Any]:
    """Each family's parameters, seconds of its steps by round, and ratios to the first.

    Raises:
        ConfigError: there is no such family.
    """
    for name in names:
        if name not in FAMILIES:
            raise ConfigError(f"There is no family {name!r}; there are {', '.join(FAMILIES)}.")
    with ExitStack() as stack:
        runners = {
            name: stack.enter_context(_runner(FAMILIES[name](size), work.rows)) for name in names
        }
        seconds = _rounds(runners, work)
    first = names[0]
    found = {
        name: _compared(runners[name].count, seconds[name], runners[first].count, seconds[first])
        for name in names
    }
    return {"rows": work.rows, "steps": work.steps, "families": found}


def table(found: dict[str, Any]) -> Table:
    """A row for each family."""
    families: dict[str, Any] = found["families"]
    made = Table(
        f"{found['rows']} rows", "active", "moved", "ms a step", "by active", "least", "most",
        "bound", "by moved", box=None, pad_edge=False,
        caption=f"yes: at most {_MOST}; bound: by active, if all is moved as fast as by the first",
    )  # fmt: skip
    for name, row in families.items():
        ratios = row["per_active_ratios"]
        made.add_row(
            name,
            *(f"{row[key] / _MILLION:.1f}M" for key in ("active_parameters", "numbers_moved")),
            f"{row['step_ms']:.2f}",
            f"{row['per_active']:.2f} {_VERDICTS[row['within_per_active']]}",
            *(f"{x:.2f}" for x in (min(ratios), max(ratios), row["bound"])),
            f"{row['per_moved']:.2f} {_VERDICTS[row['within_per_moved']]}".rstrip(),
        )
    return made


@contextmanager
def _runner(config: Config, rows: int) -> Iterator[Runner]:
    """An engine that has compiled all it will need; closed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config))
        core = EngineCore(
            EngineConfig(
                model=folder, load_format="dummy", dtype="float32", max_model_len=512,
                max_num_seqs=rows, max_num_batched_tokens=max(16, rows * _PROMPT),
                enable_prefix_caching=False, num_gpu_blocks_override=1 + rows * 64,
                num_scheduler_steps=1,
            )
        )  # fmt: skip
        try:
            core.wait_for_programs()
            model = core.model
            yield Runner(core, count(model.config, model.layout.leaves, rows))
        finally:
            core.close()


def _rounds(runners: Mapping[str, Runner], work: Work) -> dict[str, list[float]]:
    """Seconds of each turn; the first round does not count, odd ones go backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(work.rounds + 1):
        for name in list(runners)[:: -1 if number % 2 else 1]:
            taken = runners[name].turn(work, number)
            if number:
                seconds[name].append(taken)
    return seconds


def _compared(
    count: Count, seconds: list[float], first: Count, first_seconds: list[float]
) -> dict[str, Any]:
    ratios = [mine / other for mine, other in zip(seconds, first_seconds, strict=True)]
    by_active = [ratio * first.active / count.active for ratio in ratios]
    per_active = statistics.median(by_active)
    bound = count.moved / first.moved * first.active / count.active
    return {
        "parameters": count.total,
        "active_parameters": count.active,
        "numbers_moved": count.moved,
        "step_ms": 1e3 * statistics.median(seconds),
        "per_active": per_active,
        "bound": bound,
        "per_moved": per_active / bound,
        "within_per_active": _within(per_active),
        # rows take different experts, and have states of their own: not what active ones allow for
        "within_per_moved": None if _within(bound) else _within(per_active / bound),
        "per_active_ratios": by_active,
        "seconds": seconds,
    }


def _within(ratio: float) -> bool:
    """Of the ratio as it is printed."""
    return round(ratio, 2) <= _MOST


def _requests(work: Work, info: ModelInfo, seed: int) -> list[AddRequest]:
    """Where there is an encoder, it reads what the decoder begins with, too."""
    prompts = np.random.default_rng(seed).integers(3, info.vocab_size, (work.rows, _PROMPT))
    params = SamplingParams(temperature=0, max_tokens=work.steps + _OTHERS, ignore_eos=True)
    return [
        AddRequest(
            request_id=row,
            prompt_token_ids=prompt,
            params=params,
            encoder_token_ids=prompt if info.max_encoder_len else [],
        )
        for row, prompt in enumerate(prompts.tolist())
    ]
