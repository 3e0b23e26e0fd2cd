"""Where compiled programs are kept between starts."""

import os
from pathlib import Path

import jax


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/ingot/xla`, or the same under `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ingot" / "xla"


def use_compilation_cache(folder: str | None) -> None:
    """Let XLA keep every program in `folder`; a user's own JAX setting goes first."""
    if folder is None and getattr(jax.config, "jax_compilation_cache_dir", None):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder or default_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
