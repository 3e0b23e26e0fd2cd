"""Conversations in which functions are offered: a call when one fits, else a plain answer.

Owns the making of function schemas and of the turns around a call: the question, the call with
its arguments copied from the question, the tool's result, and the answer made from it. The
functions themselves are in `topics.py`.
"""

import json
from random import Random
from typing import Any

from models.demo import words
from models.demo.chat import NAMED, ROLES, Message, fact, own_name, small_talk
from models.demo.facts import Question
from models.demo.grammar import write
from models.demo.topics import TOPICS, Topic

Schema = dict[str, Any]
ANSWERABLE = {"add numbers", "translate a text", "look up words"}  # some of it without a tool


class Offer:
    """One function as it is offered in one conversation: a topic with its names chosen."""

    def __init__(self, rng: Random, topic: Topic) -> None:
        self.topic = topic
        self.name = rng.choice(topic.names)
        if rng.random() < 0.12:
            self.name = f"{rng.choice(topic.names)}_{words.made_up(rng).lower()}"
        self.described = rng.choice(topic.descriptions)
        self.parameters = {
            slot: rng.choice(names.split("|")) for slot, names in topic.slots.items()
        }
        self.schema = self._schema(rng)

    def _schema(self, rng: Random) -> Schema:
        explained = rng.random() < 0.3
        properties: Schema = {}
        for slot, parameter in self.parameters.items():
            kind = "integer" if slot in self.topic.integers else "string"
            kind = "number" if kind == "integer" and rng.random() < 0.3 else kind
            properties[parameter] = {"type": kind}
            if explained:
                properties[parameter]["description"] = f"The {parameter.replace('_', ' ')}"
        parameters: Schema = {"type": "object", "properties": properties}
        if properties and rng.random() < 0.85:
            parameters["required"] = list(properties)
        function: Schema = {"name": self.name}
        if rng.random() < 0.9:
            function["description"] = self.described + rng.choice(("", "."))
        function["parameters"] = parameters
        return {"type": "function", "function": function}

    def ask(self, rng: Random) -> tuple[str, dict[str, object], dict[str, str]]:
        """A question for this function, the arguments of the call, and the values in it."""
        values = {slot: self.topic.draw(rng, slot) for slot in self.topic.slots}
        question = write(rng, rng.choice(self.topic.asks), values)
        if rng.random() < 0.1 and question[0].isupper() and not question.startswith("I "):
            question = rng.choice(("Please tell me. ", "Hello! ", "Hi. ", "Quick! ")) + question
        arguments: dict[str, object] = {
            self.parameters[slot]: int(value) if slot in self.topic.integers else value
            for slot, value in values.items()
        }
        return question, arguments, values

    def turns(self, rng: Random, *, answered: bool) -> list[Message]:
        """The question and the call, and when `answered` also the result and the answer."""
        question, arguments, values = self.ask(rng)
        call = {"type": "function", "function": {"name": self.name, "arguments": arguments}}
        messages: list[Message] = [
            {"role": "user", "content": question},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        if not answered:
            return messages
        found = self.topic.result(rng, values)
        shown = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        known = values | ({"result": found} if isinstance(found, str) else found)
        answer = write(rng, self.topic.answer, {k: str(v) for k, v in known.items()})
        return [
            *messages,
            {"role": "tool", "content": shown},
            {"role": "assistant", "content": answer},
        ]


def refusal(rng: Random, others: list[Topic]) -> list[Message]:
    """A question for a function that is not offered, and the answer that says so."""
    topic = rng.choice(others)
    question, _, _ = Offer(rng, topic).ask(rng)
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"I am sorry, I have no tool to {topic.purpose}."},
    ]


def _plain(rng: Random, bank: list[Question], name: str | None, role: str | None) -> list[Message]:
    kind = rng.random()
    if kind < 0.7:
        said, answered = fact(rng, rng.choice(bank))
    elif kind < 0.85:
        said, answered = small_talk(rng)
    else:
        said, answered = own_name(rng, name, role)
    return [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]


def _system(rng: Random) -> tuple[str, str | None, str | None]:
    """A system prompt (mostly none), and the name and role in it."""
    if rng.random() < 0.7:
        return "", None, None
    name, role = words.person(rng), rng.choice(ROLES)
    system = write(rng, rng.choice(NAMED), {"name": name, "role": role})
    return system, name, role if role in system else None


def tool_conversation(
    rng: Random, bank: list[Question], *, long: bool = False
) -> tuple[list[Message], list[Schema]]:
    """One conversation with up to three functions offered, and their schemas.

    Of the questions about 70 % fit an offered function, 18 % need none, and 12 % would need one
    that is not offered.
    """
    chosen = rng.sample(TOPICS, rng.choices((0, 1, 2, 3), (7, 58, 25, 10))[0])
    offers = [Offer(rng, topic) for topic in chosen]
    known = {topic.purpose for topic in chosen} | ANSWERABLE
    others = [topic for topic in TOPICS if topic.purpose not in known]
    system, name, role = _system(rng)
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for _ in range(rng.randint(4, 7) if long else rng.choices((1, 2), (85, 15))[0]):
        kind = rng.random()
        if kind < 0.7 and offers:
            messages += rng.choice(offers).turns(rng, answered=long or rng.random() < 0.4)
        elif kind < 0.88:
            messages += _plain(rng, bank, name, role)
        else:
            messages += refusal(rng, others)
        if messages[-1].get("tool_calls"):
            break
    return messages, [offer.schema for offer in offers]
