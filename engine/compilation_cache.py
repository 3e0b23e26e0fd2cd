"""Where compiled programs are kept between starts."""

import os
from pathlib import Path

import jax

from engine.errors import ConfigError


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/ingot/xla`, or the same under `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ingot" / "xla"


def use_compilation_cache(folder: str | None) -> None:
    """Let XLA keep every program in `folder`; a user's own JAX setting goes first."""
    if folder is None and getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    path = Path(folder) if folder else default_folder()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if folder is None:
            return  # a read-only home: every start compiles anew
        raise ConfigError(f"--compilation-cache-dir {folder}: {error.strerror}.") from None
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
