"""`python -m serve` is `ingot`, for where the command is not on the path."""

from serve.cli import main

main()
