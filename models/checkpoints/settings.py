"""config.json as a model is read by it: overridden, and named by its path where it is wrong.

Owns what holds for every family, whatever its file in `architectures/` looks at.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from models.checkpoints.checkpoint import CONFIG, read_config
from models.config.overrides import overridden
from models.config.rope import check_rope_types
from models.errors import ModelError
from models.gguf.checkpoint import is_gguf

Settings = TypeVar("Settings")
Raw = Mapping[str, Any]


def read_settings(
    folder: Path, overrides: Raw | None, read: Callable[[Raw], Settings]
) -> tuple[dict[str, Any], Settings]:
    """config.json with the `overrides` in the place of its own values, and what `read` makes of it.

    Args:
        read: as of `overridden`. It knows no path: its sentences begin with "config.json".

    Raises:
        CheckpointError: config.json is missing or malformed.
        UnsupportedError: an override has no effect, or a rotation is of no known type.
        ModelError: as `read`.
    """
    try:
        raw = overridden(read_config(folder), overrides, read)
        check_rope_types(raw)  # after the overrides, which it would take for read
        return raw, read(raw)
    except ModelError as error:
        said = str(error)
        if not said.startswith(CONFIG):
            raise
        path = folder if is_gguf(folder) else folder / CONFIG
        raise type(error)(f"{path}{said.removeprefix(CONFIG)}") from error
