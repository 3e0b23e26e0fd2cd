"""Sleep, waking and other weights under the peers' names, and what these mean to memory.

    level 0    no step begins, and everything stays where it is
    level 1    weights go to the host's memory, the KV cache is dropped
    level 2    both are dropped; weights are read from the disk again, the same or others

Owns these words and their refusals. What is done is `engine.residence`'s.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from msgspec.structs import replace

from engine.config import EngineConfig
from engine.errors import RequestError
from engine.messages import CacheState, ReadWeights, Release, Restore, WeightsState
from engine.model_files import located
from engine.plain_values import string
from engine.settings import flag

MODES = ("abort", "wait", "keep")  # of what is at work
_LEVELS: Mapping[int, tuple[WeightsState, CacheState]] = {
    0: ("resident", "resident"),
    1: ("offloaded", "discarded"),
    2: ("discarded", "discarded"),
}
MEMORY_TAGS = ("weights", "kv_cache")
WAKING_TAGS = (*MEMORY_TAGS, "scheduling")


def read_weights(
    config: EngineConfig, path: str, load_format: str | None, version: str | None
) -> ReadWeights:
    """What has an engine of these settings go on with another checkpoint's weights. A name on the
    hub is downloaded, and what has no version is named by its path.

    Raises:
        RequestError: there is no path, or no such format.
        HubError: it cannot be had from there.
    """
    if not path:
        raise RequestError("model_path is empty; name a folder, a file or a model.", "model_path")
    if version is not None:
        version = string("weight_version", version)
    if load_format not in (None, "auto", "dummy"):
        raise RequestError(
            f"load_format is auto or dummy, got {str(load_format)[:40]!a}.", "load_format"
        )
    kind: Literal["auto", "dummy"] = "dummy" if load_format == "dummy" else "auto"
    found = located(replace(config, model=path, load_format=kind, revision=None)).model
    return ReadWeights(found, version or path, kind)


def check_method(method: str, args: Collection[object]) -> None:
    """Raise RequestError for what cannot be called by its name."""
    if method != "reload_weights":
        raise RequestError(
            f"The only method is reload_weights, got {method[:64]!a}; update_weights_from_disk "
            "reads those of another checkpoint.",
            "method",
        )
    if args:
        raise RequestError("reload_weights takes no arguments here.", "args")


def check_level(level: int, *, enabled: bool) -> None:
    """Raise RequestError for a level that there is not, or that this engine was not started for."""
    if level not in _LEVELS:
        raise RequestError(f"level is 0, 1 or 2, got {level}.", "level")
    if level:
        check_enabled(enabled, "level")


def check_enabled(enabled: bool, param: str | None = None) -> None:
    """Raise RequestError where memory is not let go of."""
    if not enabled:
        raise RequestError(
            f"This engine was started without {flag('enable_sleep_mode')} and keeps its memory; "
            "level 0 pauses it.",
            param,
        )


def check_mode(mode: str, known: Sequence[str] = MODES) -> None:
    """Raise RequestError for what cannot become of requests at work."""
    if mode not in known:
        raise RequestError(
            f"mode is {', '.join(known[:-1])} or {known[-1]} here, got {mode[:40]!a}.", "mode"
        )


def check_can_end(*, at_work: bool, resident: bool) -> None:
    """Raise RequestError where requests would be waited for in vain."""
    if at_work and not resident:
        raise RequestError(
            "What is at work cannot end while the engine sleeps; wake it up, or use abort or keep.",
            "mode",
        )


def check_scheduling(tags: Collection[str]) -> None:
    """Raise RequestError for a wish that requests go on, of an engine whose memory is gone."""
    if "scheduling" in tags:
        raise RequestError(
            "scheduling goes on once all memory is there: name weights and kv_cache, too, or no "
            "tags, which are all.",
            "tags",
        )


def check_tags(tags: Collection[str], known: Sequence[str]) -> None:
    """Raise RequestError for one that is not known."""
    for tag in tags:
        if tag not in known:
            raise RequestError(
                f"tags are {', '.join(known[:-1])} and {known[-1]} here, got {str(tag)[:40]!a}.",
                "tags",
            )


def release_of_level(level: int) -> Release:
    """What the engine is to let go of."""
    return Release(*_LEVELS[level])


def release_of_tags(tags: Collection[str]) -> Release:
    """The same by name; weights can be brought back as they are."""
    return Release(
        "offloaded" if "weights" in tags else "resident",
        "discarded" if "kv_cache" in tags else "resident",
    )


def restore_of_tags(tags: Collection[str]) -> Restore:
    """What the engine is to bring back."""
    return Restore(weights="weights" in tags, kv_cache="kv_cache" in tags)
