"""Options that take several values, as vLLM's do: `--goodput ttft:500 tpot:50`.

Click knows an option that is written several times; this writes it so. Where a word could as well
be the command's argument, it is: `ingot serve --api-key a model`.
"""

from collections.abc import Collection, Iterator, Sequence


def repeated(words: Sequence[str], flags: Collection[str], num_arguments: int) -> list[str]:
    """The words of a command with one of these flags before each of its values, if the command's
    arguments stand before all options."""
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    if first < num_arguments:
        return [*words]
    return [*words[:first], *_repeated(words[first:], flags)]


def _repeated(words: Sequence[str], flags: Collection[str]) -> Iterator[str]:
    flag, values = None, 0
    for word in words:
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            flag, values = name if name in flags else None, len(equals)
        elif flag is not None:
            if values:
                yield flag
            values += 1
        yield word
