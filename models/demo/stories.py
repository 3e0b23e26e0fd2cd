"""Small stories, diary pages, scenes and poems in simple English.

Owns how parts of `plots.py` become a text that stays with one hero; the texts have no titles.
"""

from random import Random

from models.demo import words
from models.demo.grammar import write
from models.demo.plots import (
    ABOUT,
    DIARY,
    ENDINGS,
    HABITS,
    OPENINGS,
    PLOTS,
    POEMS,
    SCENES,
)

PLACES = words.listed(
    "a small village|a big forest|a little house by the sea|a green valley|an old castle|"
    "a quiet town|a house on a hill|the deep woods|a farm by the river|a small garden|"
    "a cave in the mountains|a town by the sea|"
    "an old mill|a hut near the lake|the big city|a tiny house in the fields",
    "|",
)
HE = {"he": "he", "him": "him", "his": "his"}
SHE = {"he": "she", "him": "her", "his": "her"}
JOKES = (
    "Why did the cat sit on the clock? It wanted to be on time.",
    "What did one wall say to the other? Let us meet at the corner.",
    "Why did the banana go to the doctor? It did not peel well.",
    "What has hands but cannot clap? A clock.",
    "Why was the book so sad? It had too many problems.",
    "Why did the duck cross the road? It was the chicken's day off.",
    "What is a cat's favourite colour? Purr-ple.",
    "Why do bees have sticky hair? They use honeycombs.",
    "What has a face but no eyes? A clock.",
    "Why did the bicycle fall over? It was two tired.",
    "What gets wet while it dries? A towel.",
    "Why did the fish do well at school? It was in a good school.",
    "What has teeth but cannot bite? A comb.",
    "Why do birds fly south? It is too far to walk.",
)


def cast(rng: Random, kind: str | None = None) -> dict[str, str]:
    """The words of one story: its hero, a friend, a place and some things."""
    hero_is_girl = kind in {"girl", "queen"} or (kind not in {"boy", "king"} and rng.random() < 0.5)
    friend_is_girl = rng.random() < 0.5
    people = ("girl",) if hero_is_girl else ("boy",)
    kind = kind or rng.choice(people if rng.random() < 0.35 else words.ANIMALS)
    adj, adj2 = rng.sample(words.ADJECTIVES, 2)
    thing, thing2 = rng.sample(words.THINGS, 2)
    food, food2 = rng.sample(words.FOODS, 2)
    hero, friend = (
        words.made_up(rng)
        if rng.random() < 0.2
        else rng.choice(words.GIRLS if girl else words.BOYS)
        for girl in (hero_is_girl, friend_is_girl)
    )
    if friend == hero:
        friend = "Pip"
    place = rng.choice(PLACES)
    return (SHE if hero_is_girl else HE) | {
        "hero": hero, "friend": friend, "she": "she" if friend_is_girl else "he",
        "her": "her" if friend_is_girl else "him",
        "hers": "her" if friend_is_girl else "his", "kind": kind, "adj": adj, "adj2": adj2,
        "place": place, "home": "the " + place.split(" ", 1)[1], "thing": thing, "thing2": thing2,
        "food": food, "food2": food2, "colour": rng.choice(words.COLOURS),
        "animal": rng.choice(words.ANIMALS),
        "elder": rng.choice(("mother", "father", "grandmother", "grandfather", "uncle", "aunt")),
    }  # fmt: skip


def story(rng: Random, kind: str | None = None, *, short: bool = False) -> str:
    """A story of five to ten sentences, about `kind` when one is given."""
    people = cast(rng, kind)
    beginning, middle, end = rng.choice(list(PLOTS.values()))
    habits = [] if short else rng.sample(HABITS, rng.choice((0, 1, 1, 2)))
    middles = rng.sample(middle, 1 if short or rng.random() < 0.6 else 2)
    parts = [
        rng.choice(OPENINGS), *habits, rng.choice(beginning), *middles, rng.choice(end),
        rng.choice(ENDINGS),
    ]  # fmt: skip
    gap = "\n\n" if not short and rng.random() < 0.15 else " "
    first = " ".join(write(rng, part, people) for part in parts[: 1 + len(habits)])
    rest = " ".join(write(rng, part, people) for part in parts[1 + len(habits) :])
    return first + gap + rest


def page(rng: Random) -> str:
    """A few sentences that are no story: a diary page, a scene, or something about an animal."""
    people = cast(rng)
    source, count = rng.choice(((DIARY, (2, 5)), (SCENES, (1, 3)), (ABOUT, (2, 4))))
    parts = rng.sample(source, rng.randint(*count))
    if source is ABOUT:
        parts = [ABOUT[0], *(part for part in parts if part != ABOUT[0])]
    return " ".join(write(rng, part, people) for part in parts)


def poem(rng: Random, noun: str) -> str:
    """Four lines about `noun`."""
    text = rng.choice(POEMS).replace("A {noun}", "{A noun}").replace("a {noun}", "{a noun}")
    return write(rng, text, {"noun": noun, "adj": rng.choice(words.ADJECTIVES)})
