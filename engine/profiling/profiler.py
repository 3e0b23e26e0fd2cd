"""JAX's profiler on the steps of an engine: started, ended, and where it writes.

    start ──▶ waiting ──delay_steps──▶ tracing ──num_steps, or stop──▶ off
                                        DIR/plugins/profile/TIME/*.xplane.pb and *.trace.json.gz

The files are read by XProf, TensorBoard and https://ui.perfetto.dev. Ending a trace writes it, for
which the next step waits. Owns when that is; knows no request and no array.
"""

import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Literal

from engine.config import ProfilerConfig
from engine.errors import ConfigError, RequestError
from engine.profiling.request import ProfileRequest

_HOST_LEVEL = 2  # of JAX's three: what programs do, without their smallest parts
logger = logging.getLogger("engine.profiling")


class Profiler:
    """Of one engine, which makes its folder; without a `config` nothing can be traced.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, config: ProfilerConfig | None) -> None:
        self._config = config
        self._state: Literal["off", "waiting", "tracing", "ended"] = "off"
        self._request, self._folder = ProfileRequest(), Path()
        self._first, self._limit = 0, 0  # the step at which a trace begins, and how many it holds
        self._seen = 0
        self._traces_python = False
        if config is not None:
            _make(config.torch_profiler_dir)

    def start(self, request: ProfileRequest, num_steps: int) -> None:
        """Begin a trace, now or later; `num_steps` is how many the engine has started so far.

        Raises:
            RequestError: there is one already, or there can be none like this.
        """
        config = self._configured()
        request.check()
        if self._state in ("waiting", "tracing"):
            raise RequestError("The profiler runs already; end that trace with /stop_profile.")
        self._folder = _folder_in(Path(config.torch_profiler_dir), request.output_dir)
        delay = config.delay_iterations if request.delay_steps is None else request.delay_steps
        self._first = num_steps + delay if request.start_step is None else request.start_step
        limit = request.num_steps
        self._limit = config.max_iterations if limit is None else limit
        self._request = request
        self._state = "waiting"
        self._traces_python = request.of_host and (
            config.torch_profiler_with_stack if request.with_stack is None else request.with_stack
        )
        if self._first <= num_steps:
            self._begin(num_steps)

    def stop(self) -> None:
        """End the trace and write it; one that has ended by itself is written already.

        Raises:
            RequestError: there is none, or it cannot be written, which may be tried again.
        """
        self._configured()
        if self._state == "off":
            raise RequestError("The profiler does not run; /start_profile starts it.")
        if self._state == "tracing":
            self._write()
        self._state = "off"

    def close(self) -> None:
        """Write a trace that nobody has ended."""
        if self._state == "tracing":
            self._state = "off"
            try:
                self._write()
            except RequestError as error:
                logger.error("%s", error)

    def see(self, num_steps: int) -> None:
        """A turn of the engine's loop is over, and so many steps were started until now."""
        rests, self._seen = num_steps == self._seen, num_steps
        if self._state not in ("waiting", "tracing"):
            return
        try:
            if self._state == "waiting" and num_steps >= self._first:
                self._begin(num_steps)
            elif self._state == "tracing" and self._is_over(num_steps, rests):
                self._limit = 0  # what cannot be written now is the operator's to end
                self._write()
                self._state = "ended"
        except RequestError as error:
            logger.error("%s", error)

    def _is_over(self, num_steps: int, rests: bool) -> bool:
        """Whether as many steps as are wanted were started, and read, which is a turn later."""
        last = self._first + self._limit
        return self._limit > 0 and (num_steps > last or (rests and num_steps == last))

    def _begin(self, num_steps: int) -> None:
        import jax  # which who traces nothing needs not have loaded

        options = jax.profiler.ProfileOptions()
        options.host_tracer_level = _HOST_LEVEL if self._request.of_host else 0
        options.python_tracer_level = int(self._traces_python)
        options.raise_error_on_start_failure = True
        prefix = f"{self._request.profile_prefix}-" if self._request.profile_prefix else ""
        options.session_id = f"{prefix}{datetime.now():%Y_%m_%d_%H_%M_%S_%f}"
        self._state = "off"
        try:
            jax.profiler.start_trace(str(self._folder), profiler_options=options)
        except RuntimeError as error:
            raise RequestError(f"JAX's profiler cannot be started: {_line(error)}.") from None
        self._state, self._first = "tracing", num_steps

    def _write(self) -> None:
        import jax

        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:
            raise RequestError(f"The trace cannot be written: {_line(error)}.") from None

    def _configured(self) -> ProfilerConfig:
        if self._config is None:
            raise RequestError(
                "Nothing is traced here; start with --profiler-config "
                """'{"torch_profiler_dir": "DIR"}'."""
            )
        return self._config


def _make(folder: str) -> None:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--profiler-config: {folder[:200]!r} cannot be made: {error.strerror}."
        ) from None


def _folder_in(root: Path, asked: str | None) -> Path:
    """What is asked for in the profiler's own directory; raises RequestError for any other."""
    root = root.resolve()
    if asked is None:
        return root
    try:
        folder = (root / os.path.expanduser(asked)).resolve()
    except (OSError, RuntimeError, ValueError):  # no path at all
        folder = Path()
    if not folder.is_relative_to(root):
        raise RequestError(
            "output_dir must lie in the torch_profiler_dir of --profiler-config; leave it out.",
            "output_dir",
        )
    return folder


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200].rstrip(".")
