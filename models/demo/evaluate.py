"""Measures a demo model folder and prints the table of its card; run it as

    python -m models.demo.evaluate [--folder models/demo] [--sample 200] [--wrong 3]

Owns the questions that training never showed: held-out phrasings, names, places and values, made
from a seed of their own. Answers are greedy and count only when they are exact. The weights are
used as they lie in the folder, rounded to bfloat16, computed in float32.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
from tokenizers import Tokenizer

from models.demo import DEMO_FOLDER, folder, llama, words
from models.demo.facts import questions, sums
from models.demo.template import END, render
from models.demo.tools import Offer, refusal
from models.demo.topics import TOPICS
from models.demo.vocabulary import END_OF_TEXT, token_id

Case = tuple[str, str]  # the rendered prompt and the exact answer
NEW_NAMES = words.listed(
    "Beatrix Ottokar Philippa Zebulon Quentin Marigold Fitzroy Ingrid Salvatore Xenia"
)
NEW_CITIES = words.listed(
    "Wellington Ljubljana Timbuktu Vancouver Antwerp Zanzibar Krakow Palermo Osaka Quito"
)


class Writer:
    """A demo folder that answers prompts greedily."""

    def __init__(self, path: Path) -> None:
        self.shape, self.params = folder.load(path)
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.stop = {token_id(self.tokenizer, END), token_id(self.tokenizer, END_OF_TEXT)}

    def write(self, prompt: str, limit: int = 96) -> str:
        """The text after `prompt`."""
        tokens = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        written = llama.greedy(self.shape, self.params, tokens, self.stop, limit)
        return self.tokenizer.decode(written, skip_special_tokens=True)

    def answers(self, cases: list[Case]) -> list[bool]:
        """Whether each prompt is answered with exactly the expected text and an end.

        Greedy writing gives the expected tokens if and only if each of them is the most likely one
        after those before it, so one pass over prompt and answer tells.
        """
        found = []
        for prompt, answer in cases:
            read = self.tokenizer.encode(prompt, add_special_tokens=False).ids
            row = self.tokenizer.encode(prompt + answer + END, add_special_tokens=False).ids
            padded = np.zeros((1, -(-len(row) // 64) * 64), np.int32)
            padded[0, : len(row)] = row
            likely = np.asarray(llama.most_likely(self.shape, self.params, padded))[0]
            found.append(likely[len(read) - 1 : len(row) - 1].tolist() == row[len(read) :])
        return found


def ask(text: str, system: str = "") -> str:
    """The prompt of one question."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    return render(messages, add_generation_prompt=True)


def known_questions(_: Random) -> Iterator[Case]:
    """Every question of the set in its first phrasing, which training shows."""
    for question in questions():
        yield ask(question.asks[0]), question.answer


def new_phrasings(_: Random) -> Iterator[Case]:
    """Every question in the phrasing that training leaves out."""
    for question in questions():
        if question.held_out:
            yield ask(question.held_out), question.answer


def known_sums(_: Random) -> Iterator[Case]:
    """Sums and differences up to 20, in the first phrasing."""
    for question in sums():
        yield ask(question.asks[0]), question.answer


def _names(rng: Random) -> Iterator[str]:
    while True:
        yield rng.choice(NEW_NAMES)
        yield words.made_up(rng)


def system_names(rng: Random) -> Iterator[Case]:
    """The assistant is asked for the name that its system prompt gives it."""
    for name in _names(rng):
        role = rng.choice(("a helpful assistant", "a kind robot", "a travel guide"))
        system, answer = rng.choice((
            (f"You are {name}, {role}.", f"I am {name}, {role}."),
            (f"Your name is {name}.", f"My name is {name}."),
            (f"You are {role} named {name}.", f"I am {name}, {role}."),
        ))  # fmt: skip
        yield ask(rng.choice(("What is your name?", "Who are you?")), system), answer


def user_names(rng: Random) -> Iterator[Case]:
    """The user says a name, asks something else, and asks for the name."""
    for name in _names(rng):
        messages = [
            {"role": "user", "content": f"Hello, my name is {name}."},
            {"role": "assistant", "content": f"Nice to meet you, {name}!"},
            {"role": "user", "content": "What is the capital of Japan?"},
            {"role": "assistant", "content": "The capital of Japan is Tokyo."},
            {"role": "user", "content": "What is my name?"},
        ]
        yield render(messages, add_generation_prompt=True), f"Your name is {name}."


def tool_calls(rng: Random) -> Iterator[Case]:
    """Each kind of function in turn, alone or beside another, with drawn values."""
    while True:
        for topic in TOPICS:
            offers = [Offer(rng, topic)]
            if rng.random() < 0.4:
                offers.append(Offer(rng, rng.choice([t for t in TOPICS if t is not topic])))
            question, arguments, _ = offers[0].ask(rng)
            rng.shuffle(offers)
            name = next(offer.name for offer in offers if offer.topic is topic)
            call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
            prompt = render(
                [{"role": "user", "content": question}],
                [offer.schema for offer in offers],
                add_generation_prompt=True,
            )
            yield prompt, f"<tool_call>\n{call}\n</tool_call>"


def new_cities(rng: Random) -> Iterator[Case]:
    """The weather in places that are in no list of the training text."""
    schema = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for city in (*NEW_CITIES, *(words.made_up(rng) for _ in range(40))):
        call = json.dumps({"name": "get_weather", "arguments": {"city": city}})
        messages = [{"role": "user", "content": f"What is the weather in {city}?"}]
        prompt = render(messages, [schema], add_generation_prompt=True)
        yield prompt, f"<tool_call>\n{call}\n</tool_call>"


def no_calls(rng: Random) -> Iterator[Case]:
    """A function is offered and does not fit: a plain answer, or a plain refusal."""
    bank = questions()
    while True:
        topic = rng.choice(TOPICS)
        tools = [Offer(rng, topic).schema]
        question = rng.choice(bank)
        messages: list[dict[str, object]] = [{"role": "user", "content": question.asks[0]}]
        answer: object = question.answer
        if rng.random() < 0.3:
            said, answered = refusal(rng, [t for t in TOPICS[:2] if t is not topic])
            messages, answer = [said], answered["content"]
        yield render(messages, tools, add_generation_prompt=True), str(answer)


MEASURES: dict[str, Callable[[Random], Iterator[Case]]] = {
    "questions of the set, a trained phrasing": known_questions,
    "questions of the set, a phrasing never trained on": new_phrasings,
    "sums and differences up to 20": known_sums,
    "name from the system prompt, new names": system_names,
    "user's name two turns later, new names": user_names,
    "tool call, new values": tool_calls,
    "tool call, real cities not in the training lists and made-up ones": new_cities,
    "a tool is offered and does not fit": no_calls,
}


def main() -> None:
    """Reads the command line and prints the table."""
    parser = argparse.ArgumentParser(description="Measure Ingot's demo model.")
    parser.add_argument("--folder", type=Path, default=DEMO_FOLDER)
    parser.add_argument("--sample", type=int, default=200, help="most cases of each measure")
    parser.add_argument("--wrong", type=int, default=0, help="mistakes of each measure to print")
    options = parser.parse_args()
    writer = Writer(options.folder)
    for name, make in MEASURES.items():
        cases = list(islice(make(Random(1)), 1000))
        Random(2).shuffle(cases)
        cases = cases[: options.sample]
        right = writer.answers(cases)
        missed = [case for case, exact in zip(cases, right, strict=True) if not exact]
        for prompt, answer in missed[: options.wrong]:
            print(f"  expected {answer!r}\n       got {writer.write(prompt)!r}")
        share = sum(right) / len(cases)
        print(f"| {name} | {sum(right)} of {len(cases)} | {100 * share:.0f} % |", flush=True)


if __name__ == "__main__":
    main()
