"""The simple questions that the demo model is to answer, and what it answers.

Owns tables of plain facts and the few phrasings of each kind of question. The last phrasing of
every question is never trained on: the evaluation asks it to see whether meaning or wording was
learned. Greetings, names, stories and tools are elsewhere.
"""
# ruff: noqa: E501  (one sentence a line is easier to read than wrapped ones)

from collections.abc import Iterator
from dataclasses import dataclass

from models.demo.lore import DEFINITIONS, HOW_TO, PLAIN
from models.demo.words import listed, sentence, with_article


@dataclass(frozen=True)
class Question:
    """One question in several phrasings, and its one answer."""

    asks: tuple[str, ...]
    answer: str

    @property
    def trained(self) -> tuple[str, ...]:
        """The phrasings that training may show."""
        return self.asks[:-1] if len(self.asks) > 2 else self.asks

    @property
    def held_out(self) -> str | None:
        """The phrasing that training never shows, for questions with more than two."""
        return self.asks[-1] if len(self.asks) > 2 else None


def _pairs(table: str) -> list[tuple[str, str]]:
    """`"France: Paris; Japan: Tokyo"` as pairs."""
    rows = (row.split(": ") for row in table.replace("\n", " ").split("; "))
    return [(a.strip(), b.strip()) for a, b in rows]


CAPITALS = _pairs("""France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon;
Austria: Vienna; Ireland: Dublin; Norway: Oslo; Egypt: Cairo; Japan: Tokyo; India: New Delhi;
England: London; Greece: Athens; Poland: Warsaw; Russia: Moscow; China: Beijing; Thailand: Bangkok;
Kenya: Nairobi; Peru: Lima; Cuba: Havana; Finland: Helsinki; Sweden: Stockholm; Denmark: Copenhagen;
Belgium: Brussels; Hungary: Budapest; Canada: Ottawa; Australia: Canberra; Brazil: Brasilia;
Mexico: Mexico City; Argentina: Buenos Aires; Turkey: Ankara; Switzerland: Bern; Iceland: Reykjavik;
Scotland: Edinburgh; Wales: Cardiff; the Netherlands: Amsterdam; South Korea: Seoul; Chile: Santiago;
the United States: Washington; Ukraine: Kyiv; Morocco: Rabat; Vietnam: Hanoi; Romania: Bucharest""")
SOUNDS = _pairs("""cat: meow; dog: woof; cow: moo; duck: quack; sheep: baa; pig: oink; horse: neigh;
lion: roar; frog: croak; owl: hoot; bee: buzz; snake: hiss; mouse: squeak; crow: caw; wolf: howl;
donkey: hee-haw; turkey: gobble; rooster: cock-a-doodle-doo; goat: maa; chick: cheep""")
BABIES = _pairs("""cat: kitten; dog: puppy; cow: calf; sheep: lamb; horse: foal; duck: duckling;
goose: gosling; hen: chick; bear: cub; lion: cub; goat: kid; deer: fawn; pig: piglet; frog: tadpole;
owl: owlet; kangaroo: joey; swan: cygnet""")
HOMES = _pairs("""fish: in the water; bird: in a nest; bee: in a hive; fox: in a den; dog: in a kennel;
rabbit: in a burrow; spider: in a web; horse: in a stable; pig: in a sty; lion: on the grassland;
camel: in the desert; penguin: on the ice; monkey: in the jungle; whale: in the sea; cow: on a farm;
owl: in a tree; frog: in a pond; bear: in the forest""")
MEALS = _pairs("""rabbit: carrots and grass; cow: grass; lion: meat; panda: bamboo; squirrel: nuts;
cat: fish and meat; monkey: bananas; bee: nectar; mouse: seeds and cheese; horse: grass and hay;
bird: seeds and worms; frog: flies; penguin: fish; bear: berries and fish; sheep: grass;
koala: leaves; owl: mice; goat: grass and leaves""")
LEGS = _pairs("""dog: four; cat: four; bird: two; spider: eight; ant: six; bee: six; horse: four;
snake: no; fish: no; crab: ten; person: two; cow: four; duck: two; butterfly: six; octopus: no""")
COLOURS = _pairs("""the sky: blue; grass: green; snow: white; the sun: yellow; blood: red; coal: black;
a banana: yellow; a carrot: orange; a lemon: yellow; milk: white; chocolate: brown; a frog: green;
a strawberry: red; a tomato: red; the night: black; the sea: blue; a leaf: green; an elephant: grey;
a pumpkin: orange; a swan: white; a plum: purple; a flamingo: pink; a cucumber: green; a fire truck: red""")
OPPOSITES = _pairs("""hot: cold; big: small; up: down; fast: slow; day: night; happy: sad; old: new;
light: dark; high: low; long: short; wet: dry; open: closed; full: empty; hard: soft; left: right;
good: bad; early: late; rich: poor; strong: weak; loud: quiet; clean: dirty; near: far; thick: thin;
in: out; yes: no; black: white; first: last; heavy: light; young: old; brave: afraid; easy: difficult;
over: under; before: after; inside: outside; front: back; love: hate; win: lose; push: pull;
start: finish; laugh: cry; true: false; sweet: sour; summer: winter; sharp: blunt; rough: smooth;
wide: narrow; deep: shallow; asleep: awake; same: different; buy: sell; give: take; always: never""")
USES = _pairs("""spoon: eating soup; knife: cutting; fork: eating; pen: writing; pencil: writing and drawing;
broom: sweeping the floor; key: opening a lock; umbrella: keeping dry in the rain; clock: telling the time;
lamp: giving light; bed: sleeping; chair: sitting; hammer: hitting nails; saw: cutting wood;
cup: drinking; oven: baking; phone: talking to people far away; book: reading; ruler: measuring;
scissors: cutting paper; towel: drying yourself; soap: washing; needle: sewing; bag: carrying things;
boat: travelling on water; map: finding the way; bell: making a sound; mirror: looking at yourself;
fridge: keeping food cold; ladder: climbing up; brush: painting or cleaning; bucket: carrying water;
camera: taking pictures; candle: giving light; rope: tying things; shovel: digging; pillow: resting your head;
telescope: looking at the stars; thermometer: measuring how warm it is; compass: finding north""")
SENSES = _pairs("""see: eyes; hear: ears; smell: nose; taste: tongue; walk: legs; think: brain; write: hand;
bite: teeth; breathe: lungs; point: finger; kick: feet; speak: mouth""")
JOBS = _pairs("""baker: bakes bread and cakes; teacher: teaches children; doctor: helps sick people;
farmer: grows food and looks after animals; pilot: flies a plane; nurse: looks after sick people;
cook: makes food; painter: paints pictures; singer: sings songs; writer: writes books;
gardener: looks after plants; fisherman: catches fish; firefighter: puts out fires;
police officer: keeps people safe; dentist: looks after teeth; vet: helps sick animals;
builder: builds houses; tailor: makes clothes; postman: brings letters; sailor: works on a ship;
librarian: looks after books; bus driver: drives a bus; carpenter: makes things from wood;
astronaut: travels into space; scientist: studies how the world works; butcher: sells meat;
miner: digs in the ground; shepherd: looks after sheep; waiter: brings food to the table; judge: decides in court""")
PLURALS = _pairs("""mouse: mice; child: children; foot: feet; tooth: teeth; goose: geese; man: men;
woman: women; leaf: leaves; sheep: sheep; fish: fish; cat: cats; box: boxes; baby: babies; knife: knives;
wolf: wolves; person: people; bus: buses; city: cities; tomato: tomatoes; dog: dogs""")
RHYMES = _pairs("""cat: hat; dog: log; house: mouse; tree: bee; sun: fun; moon: spoon; star: car; light: night;
cake: lake; rain: train; boat: goat; king: ring; bed: red; ball: wall; fox: box; day: play; sea: tea""")
HELLOS = _pairs("""French: bonjour; Spanish: hola; German: hallo; Italian: ciao; Portuguese: olá;
Dutch: hallo; Russian: privet; Japanese: konnichiwa; Swedish: hej; Polish: cześć""")
THANKS = _pairs("""French: merci; Spanish: gracias; German: danke; Italian: grazie; Portuguese: obrigado;
Russian: spasibo; Japanese: arigato; Swedish: tack""")
DAYS = listed("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = listed("""January February March April May June July August September October November
December""")
NUMBERS = listed("""zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty""")
WORDS_TO_SPELL = listed(
    "cat dog house tree water apple bread friend school happy green yellow river"
)

# kind of question -> table, phrasings (the last is held out), answer
_TABLES: tuple[tuple[list[tuple[str, str]], tuple[str, ...], str], ...] = (
    (CAPITALS, ("What is the capital of {a}?", "Tell me the capital of {a}.",
                "Which city is the capital of {a}?", "What is {a}'s capital?",
                "Do you know the capital of {a}?", "capital of {a}?",
                "Name the capital of {a}."), "The capital of {a} is {b}."),
    (CAPITALS, ("{b} is the capital of which country?", "Which country has {b} as its capital?",
                "Of which country is {b} the capital?"), "{b} is the capital of {a}."),
    (SOUNDS, ("What sound does {an a} make?", "What does {an a} say?", "Which sound does the {a} make?",
              "What noise does {an a} make?", "How does {an a} sound?"), "{An a} says {b}."),
    (BABIES, ("What is a baby {a} called?", "What do you call a baby {a}?", "What is the name for a young {a}?",
              "How do you call a baby {a}?"), "A baby {a} is called {an b}."),
    (HOMES, ("Where does {an a} live?", "Where do you find {an a}?", "What is the home of {an a}?",
             "In what place does {an a} live?"), "{An a} lives {b}."),
    (MEALS, ("What does {an a} eat?", "What do you feed {an a}?", "What food does {an a} like?",
             "What does {an a} like to eat?"), "{An a} eats {b}."),
    (LEGS, ("How many legs does {an a} have?", "How many legs has {an a}?", "Count the legs of {an a}.",
            "Tell me how many legs {an a} has."), "{An a} has {b} legs."),
    (COLOURS, ("What colour is {a}?", "What color is {a}?", "Which colour does {a} have?",
               "Tell me the colour of {a}.", "What is the colour of {a}?"), "{A} is {b}."),
    (OPPOSITES, ("What is the opposite of {a}?", "Tell me the opposite of {a}.", "Give me the opposite of {a}.",
                 "Which word is the opposite of {a}?", "opposite of {a}?"), "The opposite of {a} is {b}."),
    (USES, ("What is {an a} used for?", "What do you use {an a} for?", "What is {an a} for?",
            "What can you do with {an a}?", "Why do people use {an a}?"), "{An a} is used for {b}."),
    (SENSES, ("What do we {a} with?", "With what do we {a}?", "Which part of the body do we use to {a}?",
              "What part of the body helps us {a}?"), "We {a} with our {b}."),
    (JOBS, ("What does {an a} do?", "What is the job of {an a}?", "Tell me what {an a} does.",
            "What is {an a}?", "What kind of work does {an a} do?"), "{An a} {b}."),
    (PLURALS, ("What is the plural of {a}?", "How do you say more than one {a}?", "Tell me the plural of {a}.",
               "Give me the plural of {a}."), "The plural of {a} is {b}."),
    (RHYMES, ("What rhymes with {a}?", "Tell me a word that rhymes with {a}.", "Which word rhymes with {a}?",
              "Give me a rhyme for {a}."), "{B} rhymes with {a}."),
    (HELLOS, ("How do you say hello in {a}?", "What is hello in {a}?", "Say hello in {a}.",
              "What is the {a} word for hello?"), "Hello in {a} is {b}."),
    (THANKS, ("How do you say thank you in {a}?", "What is thank you in {a}?", "Say thank you in {a}.",
              "What is the {a} word for thank you?"), "Thank you in {a} is {b}."),
)  # fmt: skip


def _article(noun: str) -> str:
    plural = noun in {"scissors"} or noun in {"soap"}
    return noun if plural else with_article(noun)


def fill(pattern: str, a: str, b: str) -> str:
    """A phrasing with its words put in: `{a}`, `{A}` with a capital, `{an a}` after its article."""
    words = {"{a}": a, "{b}": b, "{A}": sentence(a), "{B}": sentence(b), "{an a}": _article(a),
             "{An a}": sentence(_article(a)), "{an b}": with_article(b)}  # fmt: skip
    for slot, word in words.items():
        pattern = pattern.replace(slot, word)
    return pattern


def _from_tables() -> Iterator[Question]:
    for table, asks, answer in _TABLES:
        for a, b in table:
            question = Question(tuple(fill(ask, a, b) for ask in asks), fill(answer, a, b))
            plural = a == "scissors" and "used for" in question.answer
            yield (
                question
                if not plural
                else Question(
                    tuple(ask.replace("What is ", "What are ") for ask in question.asks),
                    question.answer.replace(" is used", " are used"),
                )
            )


def _cycle(names: tuple[str, ...], kind: str) -> Iterator[Question]:
    """Which day or month comes after and before another."""
    for index, name in enumerate(names):
        after, before = names[(index + 1) % len(names)], names[index - 1]
        yield Question((f"What {kind} comes after {name}?", f"Which {kind} comes after {name}?",
                        f"What comes after {name}?", f"Which {kind} follows {name}?"),
                       f"{after} comes after {name}.")  # fmt: skip
        yield Question((f"What {kind} comes before {name}?", f"Which {kind} comes before {name}?",
                        f"What comes before {name}?", f"Which {kind} is before {name}?"),
                       f"{before} comes before {name}.")  # fmt: skip


def _sums() -> Iterator[Question]:
    """Addition and subtraction with results from 0 to 20."""
    for a in range(21):
        for b in range(21 - a):
            yield Question((f"What is {a} plus {b}?", f"What is {a} + {b}?", f"{a} + {b} = ?", f"{a} + {b}", f"What is {a}+{b}?",
                            f"How much is {a} plus {b}?", f"Add {a} and {b}."),
                           f"{a} plus {b} is {a + b}.")  # fmt: skip
            yield Question((f"What is {a + b} minus {a}?", f"What is {a + b} - {a}?", f"{a + b} - {a} = ?",
                            f"{a + b} - {a}", f"What is {a + b}-{a}?", f"How much is {a + b} minus {a}?", f"Take {a} from {a + b}."),
                           f"{a + b} minus {a} is {b}.")  # fmt: skip


def _counting() -> Iterator[Question]:
    for n in range(2, 21):
        counted = ", ".join(map(str, range(1, n + 1)))
        yield Question((f"Count to {n}.", f"Can you count to {n}?", f"Count from 1 to {n}.",
                        f"Count to {NUMBERS[n]}.", f"Please count up to {n}."), f"{counted}.")  # fmt: skip
    for n in range(20):
        yield Question((f"What number comes after {n}?", f"Which number comes after {n}?", f"What comes after {n}?",
                        f"What is the next number after {n}?"), f"{n + 1} comes after {n}.")  # fmt: skip
    for n in range(3, 11):
        counted = ", ".join(map(str, range(n, 0, -1)))
        yield Question((f"Count backwards from {n}.", f"Count down from {n}.", f"Can you count down from {n}?",
                        f"Please count backwards from {n}."), f"{counted}.")  # fmt: skip


def _spelling() -> Iterator[Question]:
    for word in WORDS_TO_SPELL:
        letters = "-".join(word.upper())
        yield Question((f"How do you spell {word}?", f"Spell the word {word}.", f"Can you spell {word}?",
                        f"How is {word} spelled?"), f"{sentence(word)} is spelled {letters}.")  # fmt: skip


def _definitions() -> Iterator[Question]:
    for thing, answer in DEFINITIONS.items():
        yield Question((f"What is {thing}?", f"Can you explain what {thing} is?", f"What do you know about {thing}?",
                        f"Define {thing}.", f"Tell me what {thing} is.", f"Please explain {thing}."), answer)  # fmt: skip


def _how_to() -> Iterator[Question]:
    for task, answer in HOW_TO.items():
        yield Question((f"How do you {task}?", f"How do I {task}?", f"How can I {task}?",
                        f"Tell me how to {task}.", f"What is the way to {task}?"), answer)  # fmt: skip


def questions() -> list[Question]:
    """Every question of the set but sums, without repeats of the same wording."""
    found = [
        *_from_tables(), *_cycle(DAYS, "day"), *_cycle(MONTHS, "month"), *_counting(),
        *_spelling(), *_definitions(), *_how_to(), *(Question(asks, a) for asks, a in PLAIN),
    ]  # fmt: skip
    seen: set[str] = set()
    unique = []
    for question in found:
        asks = tuple(ask for ask in question.asks if ask not in seen)
        seen.update(asks)
        if asks:
            unique.append(Question(asks, question.answer))
    return unique


def sums() -> list[Question]:
    """Every sum and difference of the set."""
    return list(_sums())
