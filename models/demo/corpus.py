"""The mixture of texts that the demo model is trained on.

Owns what share of the training text is conversation, tools, stories and books, how much each token
counts in the loss, and how books are read. Documents are endless and a seed repeats them.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from models.demo import facts, words
from models.demo.chat import conversation
from models.demo.stories import page, story
from models.demo.template import render
from models.demo.tools import tool_conversation

ASSISTANT = "<|im_start|>assistant\n"
SHARES = {"chat": 0.52, "tools": 0.25, "story": 0.17, "book": 0.06}  # of documents
LATE_SHARES = {"chat": 0.7, "tools": 0.19, "story": 0.08, "book": 0.03}  # in the last two fifths
PROMPT_WEIGHT = 0.1  # of tokens that the model reads but never has to write

DRILLS = 0.12  # drills per other document

Piece = tuple[str, float]  # a text and the weight of its tokens in the loss


def read_books(folder: Path | None) -> list[str]:
    """Paragraph-sized pieces of every English `.txt` and `.md` under `folder`.

    A text in which under 90 % of the characters are ASCII is left out, and so is what stands
    before and after the marks of a Project Gutenberg file.
    """
    pieces: list[str] = []
    for path in sorted(folder.rglob("*")) if folder else ():
        if path.suffix not in {".txt", ".md"}:
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if sum(map(str.isascii, text)) < 0.9 * len(text):
            continue
        start = text.find("*** START")
        end = text.find("*** END")
        text = text[text.find("\n", start) if start >= 0 else 0 : end if end >= 0 else len(text)]
        pieces += _pieces(text)
    return pieces


def _pieces(text: str, size: int = 600) -> Iterator[str]:
    """Paragraphs joined until they are `size` characters long; lines of a paragraph are joined."""
    gathered: list[str] = []
    for paragraph in text.replace("\r", "").split("\n\n"):
        verse = "\n" if paragraph.split("\n", 1)[0].endswith(":") else " "
        gathered.append(verse.join(line.strip() for line in paragraph.strip().split("\n")))
        if sum(map(len, gathered)) > size:
            yield "\n\n".join(filter(None, gathered))[:1600]
            gathered = []


class Corpus:
    """Endless training documents, as pieces of text with their weights.

    `drills` mixes in lists to copy: copying is learned from them, and serves names and arguments.
    """

    def __init__(self, seed: int, books: list[str], *, drills: bool = True) -> None:
        self.rng = Random(seed)
        self.books = books
        self.drills = drills
        self.shares = SHARES
        self.bank = facts.questions()
        self.sums = facts.sums()

    def document(self, *, long: bool = False) -> list[Piece]:
        """The next document; a `long` one is a conversation of many turns."""
        if self.drills and not long and self.rng.random() < DRILLS:
            return drill(self.rng)
        shares = dict(self.shares)
        if not self.books:
            del shares["book"]
        kind = self.rng.choices(list(shares), list(shares.values()))[0]
        if long:
            kind = self.rng.choice(("chat", "chat", "tools"))
        if kind == "chat":
            return weigh(render(conversation(self.rng, self.bank, self.sums, long=long)))
        if kind == "tools":
            messages, schemas = tool_conversation(self.rng, self.bank, long=long)
            return weigh(render(messages, schemas))
        if kind == "book":
            return [(self.rng.choice(self.books), 1.0)]
        return [(story(self.rng) if self.rng.random() < 0.75 else page(self.rng), 1.0)]


def drill(rng: Random) -> list[Piece]:
    """A list of words, most of them made up, written once to be read and again to be learned."""
    known = (*words.GIRLS, *words.BOYS, *words.CITIES, *words.THINGS, *words.ANIMALS)
    listed = [
        words.made_up(rng) if rng.random() < 0.6 else rng.choice(known)
        for _ in range(rng.randint(3, 24))
    ]
    joint = rng.choice((" ", ", ", "\n", '", "', " and ", ". "))
    text = joint.join(listed) + ".\n"
    return [(text, 0.0), (text * rng.choice((1, 1, 2)), 1.0)]


def weigh(text: str) -> list[Piece]:
    """A rendered conversation cut into what the assistant writes (1) and what it reads."""
    first, *answers = text.split(ASSISTANT)
    pieces: list[Piece] = [(first + ASSISTANT, PROMPT_WEIGHT)]
    for answer in answers:
        written, end, read = answer.partition("<|im_end|>")
        pieces += [(written + end, 1.0), (read + ASSISTANT, PROMPT_WEIGHT)]
    last, weight = pieces[-1]
    pieces[-1] = (last.removesuffix(ASSISTANT), weight)
    return pieces
