"""What an operator does to an engine in this process, between calls of `LLM` or during them.

Owns the words of these calls; what they do is the loop's, the core's and the profiler's.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from engine.calls import Loop
from engine.core import EngineCore
from engine.metrics import Metric, metrics_of
from engine.pooling.core import PoolingCore
from engine.profiling.profiler import Profiler
from engine.profiling.request import ProfileRequest


class Operations(ABC):
    """Of `LLM`, which has these three."""

    model: str
    _core: EngineCore | PoolingCore
    _profiler: Profiler

    @property
    @abstractmethod
    def _loop(self) -> Loop:
        """Of an engine that writes text; raises RequestError for others."""

    def get_metrics(self) -> list[Metric]:
        """The engine's numbers, as a server's `/metrics` has them:
        `{each.name: each.value for each in llm.get_metrics() if isinstance(each, Counter)}`, with
        `from engine.metrics import Counter`."""
        labels = {"model_name": self.model, "engine": "0"}
        return list(metrics_of(self._core.stats, labels))

    def get_world_size(self) -> int:
        """How many devices the model is spread over."""
        return self._core.info.num_devices

    def reset_prefix_cache(self) -> None:
        """Compute every prompt from its beginning again; requests that run go on."""
        if isinstance(self._core, EngineCore):  # others keep nothing
            self._loop.reset_prefix_cache()

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        """Compute nothing until `wake_up`. With `enable_sleep_mode=True` level 1 moves the weights
        to the host's memory and drops the KV cache, and level 2 drops both; nothing is compiled
        again. JAX in this process has the memory then; other processes only if
        XLA_PYTHON_CLIENT_ALLOCATOR says so.

        `mode`: what was queued ends ("abort"), runs to its end first ("wait"), or begins again
        afterwards ("keep").

        Raises:
            RequestError: there is no such level or mode, or the engine was not started for it.
        """
        self._loop.sleep(level, mode)

    def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Bring back everything, or of "weights", "kv_cache" and "scheduling" what `tags` name;
        weights that were dropped are read from the disk. Steps go on once all is there. Raises
        RequestError: there is no such tag, or no room."""
        self._loop.wake_up(tags)

    def release_kv_cache_memory(self) -> None:
        """Drop the KV cache alone, until `wake_up(["kv_cache"])`; raises as `sleep`."""
        self._loop.release_kv_cache_memory()

    def update_weights_from_disk(
        self, model_path: str, *, load_format: str = "auto", weight_version: str | None = None
    ) -> None:
        """Go on with the weights of another checkpoint of this architecture and these shapes, also
        in an engine that sleeps; nothing is compiled, and nothing found of what was computed.

        Raises:
            RequestError: they cannot be read or do not fit; the old ones stay.
        """
        self._loop.update_weights(str(model_path), load_format, weight_version)

    def collective_rpc(self, method: str, args: Sequence[object] = ()) -> list[None]:
        """vLLM's way to read the weights again, as they are on the disk now:
        `collective_rpc("reload_weights")`. Raises RequestError for any other method."""
        self._loop.collective_rpc(method, args)
        return [None]

    def start_profile(self, profile_prefix: str | None = None) -> None:
        """Trace steps from now on into the folder of the setting `profiler_config`:
        `LLM(profiler_config={"torch_profiler_dir": "traces"})`.

        Raises:
            RequestError: there is no such setting, or a trace that has not ended.
        """
        request = ProfileRequest(profile_prefix=profile_prefix)
        self._profiler.start(request, self._core.stats.num_steps)

    def stop_profile(self) -> None:
        """End the trace and write it; raises RequestError if there is none."""
        self._profiler.stop()
