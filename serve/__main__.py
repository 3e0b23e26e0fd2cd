"""`ingot`, which is `python -m serve` where the command is not on the path."""

from serve.commands.interrupted import INTERRUPTED, leave


def main() -> None:
    """The entry point; an interrupt is one line and exit code 130."""
    try:
        from serve.cli import main as run

        run()
    except KeyboardInterrupt:
        leave()
    except SystemExit as error:
        if error.code == INTERRUPTED:
            leave()
        raise


if __name__ == "__main__":
    main()
