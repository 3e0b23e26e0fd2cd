"""Word lists that the generated training text draws from, and words that nobody has seen before.

Owns lists and the making of new names. A third of all names and places in the training text are
made up from syllables, so that the model learns to copy a name rather than to recognise one.
"""

from random import Random


def listed(text: str, separator: str | None = None) -> tuple[str, ...]:
    """The words of a text, or its parts between separators."""
    return tuple(text.split(separator))


GIRLS = listed(
    "Anna Mia Lily Emma Sara Lucy Rosa Ella Nina Clara Maya Zoe Ruth Alice Grace Ivy Lena Nora Eva "
    "Julia Molly Daisy Hannah Amy Kate Jane Mary Sophie Tina Wendy Olga Leila Aisha Yuki Priya Ines"
)
BOYS = listed(
    "Tom Ben Max Sam Leo Jack Tim Peter Paul Oscar Finn Noah Luke Adam Henry Jonas Felix Hugo Otto "
    "Karl Omar Ali Ravi Kenji Ivan Pedro Marco Louis George Simon Mark Daniel Theo Will Ned Bob"
)
CITIES = listed(
    "Paris London Berlin Rome Madrid Lisbon Vienna Dublin Oslo Cairo Tokyo Delhi Boston Chicago "
    "Denver Seattle Toronto Sydney Athens Prague Warsaw Munich Milan Lyon Geneva Hamburg Moscow "
    "Beijing Seoul Bangkok Nairobi Lima Havana Houston Dallas Miami Portland Bristol Leeds York "
    "Zurich Naples Venice Florence Helsinki Stockholm Copenhagen Brussels Budapest Kyoto Mumbai"
)
ANIMALS = listed(
    "cat dog fox rabbit bear mouse duck hen goat sheep pony horse cow pig frog turtle squirrel "
    "hedgehog owl crow robin swan goose beaver badger otter deer wolf lamb kitten puppy donkey "
    "monkey elephant lion tiger parrot penguin seal snail bee butterfly"
)
ADJECTIVES = listed(
    "little small big old young brave shy kind clever quiet happy curious gentle lazy funny proud "
    "careful cheerful friendly hungry sleepy strong tiny wise busy lonely"
)
COLOURS = listed("red blue green yellow white black brown orange purple grey pink golden silver")
THINGS = listed(
    "ball kite boat drum lamp key box book hat coat scarf basket bell cup spoon bucket shovel "
    "blanket ladder rope stone shell feather flower apple pear cake map letter ring coin button "
    "mirror clock whistle candle wagon bicycle doll puzzle umbrella"
)
FOODS = listed(
    "bread soup cake apples berries honey cheese rice pancakes cookies carrots nuts pears plums "
    "porridge milk pie noodles potatoes eggs"
)
LANGUAGES = listed(
    "French German Spanish Italian Japanese Chinese Russian Arabic Portuguese Dutch Polish Greek "
    "Turkish Korean Hindi Swedish Danish Finnish Czech Welsh Latin Irish"
)
SURNAMES = listed(
    "Smith Brown Miller Baker Hill Green Wood King Stone Young Clark Moore Hall Allen Cook Bell "
    "Ward Gray Fox Lane Reed Price Wells Marsh Shaw"
)

_STARTS = listed(
    "B Br C Ch D Dr F Fl G Gr H J K Kl L M N P Pr Q R S Sh Sk St T Th Tr V W Y Z A E I O U Al El Or"
)
_MIDDLES = listed(
    "a e i o u ai ea ee ia io ou al an ar el en er il in ir ol on or ul um un ari ela ino oma usa"
)
_JOINS = listed("b c d f g k l ll m n nd nn p r rr s ss t tt v x z")
_ENDS = listed(
    "a e i o y n l r s t d k m ck nn ra na la ta ro no do ko ton ville ford by ia us el en"
)


def made_up(rng: Random) -> str:
    """A pronounceable word with a capital that is very likely new: "Brinolta", "Zumen"."""
    word = rng.choice(_STARTS) + rng.choice(_MIDDLES)
    for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
        word += rng.choice(_JOINS) + rng.choice(_MIDDLES)
    return (word + (rng.choice(_ENDS) if word[-1] in "aeiou" else rng.choice("aeio"))).capitalize()


def person(rng: Random) -> str:
    """A first name, often made up."""
    return made_up(rng) if rng.random() < 0.4 else rng.choice(rng.choice((GIRLS, BOYS)))


def city(rng: Random) -> str:
    """A place, often made up, sometimes of two words."""
    if rng.random() < 0.55:
        return rng.choice(CITIES)
    start = (
        rng.choice(("New ", "San ", "Port ", "North ", "Saint ", "Old "))
        if rng.random() < 0.2
        else ""
    )
    return start + made_up(rng)


def with_article(noun: str) -> str:
    """`noun` after the "a" or "an" that it needs."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def sentence(text: str) -> str:
    """`text` with its first letter made a capital."""
    return text[:1].upper() + text[1:]
