"""The root of Ingot's error tree, and the errors of checkpoints and architectures.

    IngotError
    ├── ModelError                  the model cannot be used (command line: exit code 2)
    │   ├── CheckpointError         a file is missing, truncated, malformed or refused
    │   └── UnsupportedError        an architecture, format or sharding that does not exist here
    └── (engine.errors)             requests, memory, the engine itself

Each message is one sentence that names what was wrong and what would work.
"""


class IngotError(Exception):
    """Root of every error that Ingot raises on purpose."""

    exit_code = 2  # of the command line


class ModelError(IngotError):
    """The model cannot be loaded or used as asked."""


class CheckpointError(ModelError):
    """A checkpoint file is missing, truncated, malformed or refused."""


class UnsupportedError(ModelError):
    """The checkpoint is sound but asks for something that Ingot does not implement."""


def headline(error: BaseException) -> str:
    """What somebody else's error says, as a part of a sentence: its kind, and its first line."""
    first = next(iter(str(error).strip().splitlines()), "")[:200].rstrip(". ")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
