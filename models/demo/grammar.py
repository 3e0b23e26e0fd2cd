"""Text with choices and slots, written out at random.

Owns the notation: `[a|b]` is one of its parts (choices may nest), `{name}` a word, `{Name}` the
word with a capital, `{a name}` the word after its article. Knows no words itself.
"""

import re
from collections.abc import Mapping
from random import Random

from models.demo.words import sentence, with_article

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([aA] )?(\w+)\}")


def write(rng: Random, text: str, words: Mapping[str, str]) -> str:
    """`text` with its choices made and its slots filled from `words`.

    Raises:
        KeyError: a slot has no word.
    """
    while (chosen := _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)) != text:
        text = chosen

    def word(match: re.Match[str]) -> str:
        article, name = match[1], match[2]
        value = words[name] if name in words else sentence(words[name.lower()])
        if not article:
            return value
        return with_article(value) if article == "a " else sentence(with_article(value))

    return _SLOT.sub(word, text)
