"""Traces of steps: which of them are in one, and where it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from engine.config import ProfilerConfig, make_config
from engine.errors import ConfigError, RequestError
from engine.llm import LLM
from engine.profiling.profiler import Profiler
from engine.profiling.request import ProfileRequest
from engine.sampling.params import SamplingParams


def traces(folder: Path) -> list[Path]:
    return sorted(folder.glob("plugins/profile/*/*.xplane.pb"))


def names_in(trace: Path) -> set[str]:
    planes = jax.profiler.ProfileData.from_file(str(trace)).planes
    return {event.name for plane in planes for line in plane.lines for event in line.events}


class Steps:
    """An engine whose step n is marked `step n` in a trace."""

    def __init__(self, profiler: Profiler) -> None:
        self.profiler, self.done = profiler, 0

    def take(self, count: int) -> None:
        for _ in range(count):
            with jax.profiler.TraceAnnotation(f"step {self.done}"):
                self.done += 1
            self.profiler.see(self.done)

    def rest(self) -> None:
        """A turn that starts nothing."""
        self.profiler.see(self.done)

    def start(self, **request: Any) -> None:
        self.profiler.start(ProfileRequest(**request), self.done)


def steps_in(trace: Path) -> list[int]:
    return sorted(int(name[5:]) for name in names_in(trace) if name.startswith("step "))


@pytest.fixture
def engine(tmp_path: Path) -> Steps:
    config = ProfilerConfig(torch_profiler_dir=str(tmp_path), torch_profiler_with_stack=False)
    return Steps(Profiler(config))


def test_what_happens_in_between_is_in_the_trace(engine: Steps, tmp_path: Path) -> None:
    engine.take(2)
    engine.start(profile_prefix="mine")
    engine.take(3)
    assert not traces(tmp_path)
    engine.profiler.stop()
    engine.take(1)
    [trace] = traces(tmp_path)
    assert steps_in(trace) == [2, 3, 4] and trace.parent.name.startswith("mine-")
    assert list(trace.parent.glob("*.trace.json.gz"))  # for Perfetto


@pytest.mark.parametrize(
    "request_",
    [{"delay_steps": 2, "num_steps": 3}, {"start_step": 4, "num_steps": 3}],
)
def test_a_trace_may_begin_later_and_end_by_itself(
    engine: Steps, tmp_path: Path, request_: dict[str, int]
) -> None:
    """The newest step is read a turn later, so the trace holds that turn, too."""
    engine.take(2)
    engine.start(**request_)
    engine.take(5)
    assert not traces(tmp_path)
    engine.rest()
    [trace] = traces(tmp_path)
    assert steps_in(trace) == [4, 5, 6]
    engine.profiler.stop()  # is written already
    engine.start(num_steps=1)
    engine.take(9)
    assert [steps_in(each) for each in traces(tmp_path)] == [[4, 5, 6], [7, 8]]
    engine.start()  # without having ended what has ended
    engine.profiler.stop()


def test_settings_hold_unless_a_request_says_otherwise(tmp_path: Path) -> None:
    config = ProfilerConfig(
        torch_profiler_dir=str(tmp_path), torch_profiler_with_stack=False, delay_iterations=1,
        max_iterations=1,
    )  # fmt: skip
    engine = Steps(Profiler(config))
    engine.start()
    engine.take(4)
    engine.start(num_steps=0, delay_steps=0, output_dir="inner")
    engine.take(4)
    engine.profiler.stop()
    assert [steps_in(each) for each in traces(tmp_path)] == [[1, 2]]
    assert [steps_in(each) for each in traces(tmp_path / "inner")] == [[4, 5, 6, 7]]


def test_python_is_in_it_where_that_is_asked_for(engine: Steps, tmp_path: Path) -> None:
    for stack in (True, False):
        engine.start(with_stack=stack, profile_prefix=str(stack))
        engine.take(1)
        engine.profiler.stop()
    without, with_it = (names_in(each) for each in traces(tmp_path))
    assert any("__exit__" in name or "see" in name for name in with_it - without)
    engine.start(activities=["GPU"])
    engine.take(1)
    engine.profiler.stop()
    assert not any(steps_in(each) for each in traces(tmp_path) if each.parent.name[0] not in "TF")


def test_a_second_start_and_a_stop_without_one_are_refused(engine: Steps) -> None:
    for begin in (engine.start, lambda: engine.start(delay_steps=9)):
        with pytest.raises(RequestError, match="does not run; /start_profile"):
            engine.profiler.stop()
        begin()
        with pytest.raises(RequestError, match="runs already; end that trace with /stop_profile"):
            engine.start()
        engine.profiler.stop()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"num_steps": -1}, "num_steps"),
    ({"delay_steps": -1}, "delay_steps"),
    ({"start_step": 2**31}, "start_step"),
    ({"start_step": 1, "delay_steps": 1}, "start_step"),
    ({"activities": ["CPU"]}, "activities"),
    ({"activities": ["GPU", "MEM"]}, "activities"),
    ({"activities": ["GPU"], "with_stack": True}, "with_stack"),
    ({"profile_prefix": "../a"}, "profile_prefix"),
    ({"output_dir": "/tmp"}, "output_dir"),
    ({"output_dir": "inner/../.."}, "output_dir"),
    ({"output_dir": "~root"}, "output_dir"),
    ({"output_dir": "~nobody-of-this-name/a\0"}, "output_dir"),
]


@pytest.mark.parametrize(("request_", "param"), WRONG)
def test_what_cannot_be_is_refused_by_name(
    engine: Steps, tmp_path: Path, request_: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as refused:
        engine.start(**request_)
    assert refused.value.param == param
    engine.take(1)
    assert not list(tmp_path.iterdir())
    engine.start(output_dir=str(tmp_path / "fine"))  # within, though it is absolute
    engine.profiler.stop()
    assert traces(tmp_path / "fine")


def test_a_link_leads_nowhere_else(engine: Steps, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/")
    with pytest.raises(RequestError, match="must lie in"):
        engine.start(output_dir="out/tmp")


def test_the_setting_is_checked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    wrong: list[Callable[[], Any]] = [
        lambda: make_config(profiler_config={"torch_profiler_dir": " "}),
        lambda: make_config(profiler_config={"torch_profiler_dir": "a", "max_iterations": -1}),
        lambda: make_config(profiler_config={"profiler": "cuda", "torch_profiler_dir": "a"}),
        lambda: make_config(profiler_config={"torch_profiler_dir": "a", "ignore_frontend": True}),
        lambda: Profiler(ProfilerConfig(torch_profiler_dir=str(tmp_path / "file" / "in"))),
    ]
    for each in wrong:
        with pytest.raises(ConfigError, match="--profiler-config"):
            each()


def test_without_the_setting_nothing_is_traced() -> None:
    profiler = Profiler(None)
    profiler.see(3)
    for act in (profiler.stop, lambda: profiler.start(ProfileRequest(), 0)):
        with pytest.raises(RequestError, match="--profiler-config"):
            act()


def test_a_trace_that_cannot_be_written_may_be_later(engine: Steps, tmp_path: Path) -> None:
    for limit in (0, 1):
        (tmp_path / "plugins").touch()  # where its folder is to be
        engine.start(num_steps=limit)
        engine.take(3)
        with pytest.raises(RequestError, match="cannot be written"):
            engine.profiler.stop()
        with pytest.raises(RequestError, match="runs already"):
            engine.start()
        (tmp_path / "plugins").unlink()
        engine.profiler.stop()
        engine.start()
        engine.profiler.stop()
        (tmp_path / "plugins").rename(tmp_path / f"done-{limit}")


def test_who_traces_by_himself_is_told(engine: Steps, tmp_path: Path) -> None:
    """There is one trace in a process."""
    jax.profiler.start_trace(str(tmp_path / "own"))
    try:
        with pytest.raises(RequestError, match="cannot be started: Profile has already"):
            engine.start()
    finally:
        jax.profiler.stop_trace()
    engine.start()
    engine.profiler.stop()


def test_an_llm_traces_its_steps(tiny_folder: Path, tmp_path: Path) -> None:
    config = {"torch_profiler_dir": str(tmp_path), "max_iterations": 2}
    settings = {"load_format": "dummy", "max_num_seqs": 2, "num_scheduler_steps": 1}
    params = SamplingParams(max_tokens=5, ignore_eos=True)
    with LLM(str(tiny_folder), profiler_config=config, **settings) as llm:
        llm.generate([1, 2], params, use_tqdm=False)  # tests compile what they use
        llm.start_profile("llm")
        llm.generate([1, 2], params, use_tqdm=False)
        [trace] = traces(tmp_path)  # it has ended by itself
        llm.stop_profile()
    assert trace.parent.name.startswith("llm-")
    assert any(name.endswith(" launch") for name in names_in(trace))


def test_who_leaves_loses_no_trace(engine: Steps, tmp_path: Path) -> None:
    engine.profiler.close()
    assert not traces(tmp_path)
    engine.start()
    engine.take(2)
    engine.profiler.close()
    engine.profiler.close()
    assert [steps_in(trace) for trace in traces(tmp_path)] == [[0, 1]]
