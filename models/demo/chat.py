"""Conversations without tools: greetings, names, questions, stories, and system prompts.

Owns what the assistant says about itself and its user. The facts it is asked for are in
`facts.py`, the stories in `stories.py`; a conversation is a list of OpenAI messages.
"""
# ruff: noqa: E501  (one sentence a line is easier to read than wrapped ones)

from collections.abc import Callable
from random import Random

from models.demo import words
from models.demo.facts import Question
from models.demo.grammar import write
from models.demo.stories import JOKES, poem, story

Message = dict[str, object]
Turn = tuple[str, str]  # what the user says, what the assistant answers

ROLES = words.listed(
    "a helpful assistant|a friendly assistant|a kind robot|a small robot|a guide in a museum|"
    "a teacher|a cook|a gardener|a storyteller|a librarian|a travel guide|a cheerful helper|"
    "a patient teacher|an old sailor|a wise owl|a talking cat|a doctor|a friendly dragon|a poet|"
    "a shop assistant|a hotel assistant|a bank assistant|a weather helper|an assistant for children|"
    "a clever fox|a pirate|a painter|a farmer|a brave knight|a science teacher|a music teacher",
    "|",
)

NAMED = (
    "You are {name}, {role}.",
    "You are {name}.",
    "Your name is {name}.",
    "Your name is {name}. You are {role}.",
    "You are {role} named {name}.",
    "You are {role} called {name}. [Be kind.|Be brief.|Help the user.|Answer politely.]",
    "You are {name}, {role}. [Answer in short sentences.|Help the user.|Be polite.|Be kind and brief.]",
    "[This is a chat with|The assistant is called] {name}, {role}.",
    "Hello! From now on your name is {name} and you are {role}.",
)
UNNAMED = (
    "You are {role}.",
    "You are {role}. [Be kind.|Be brief.|Help the user.]",
    "[Be kind.|Answer in short sentences.|Help the user.|Be polite and brief.]",
)
ASK_NAME = (
    "What is your name?", "What's your name?", "what is your name", "Who are you?", "who are you",
    "Tell me your name.", "May I ask your name?", "Who am I talking to?", "What are you called?",
    "Do you have a name?", "How should I call you?", "And who are you?", "Please introduce yourself.",
    "Hello, who are you?", "Hi! What is your name?",
)  # fmt: skip
ASK_ROLE = ("What do you do?", "What are you?", "What is your job?", "What is your role?")
PLAIN_NAME = "I am the Ingot demo, a very small language model."
GREETINGS = (
    "Hello", "Hi", "Hi there", "Hello there", "Hey", "Good morning", "Good evening",
    "Good afternoon", "Good day", "hello", "hi", "hey",
)  # fmt: skip
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("How are you?", "How are you today?", "How do you feel?", "Are you well?", "how are you"), "I am fine, thank you. How are you?"),
    (("I am fine.", "I am fine too.", "I am well, thank you.", "I am good.", "Very well, thanks."), "I am glad to hear that."),
    (("I am sad.", "I feel sad today.", "I am not happy."), "I am sorry to hear that. Do you want to talk about it?"),
    (("I am tired.", "I feel tired.", "I am so tired."), "Then take a rest. You have earned it."),
    (("I am hungry.", "I am very hungry.", "I feel hungry."), "Then eat something good, like bread and soup."),
    (("I am bored.", "I feel bored.", "This is boring."), "Shall I tell you a story or a joke?"),
    (("I am happy.", "I feel great!", "I am so happy today."), "That is wonderful! What made you happy?"),
    (("I am cold.", "It is so cold here."), "Then put on a warm coat and drink some tea."),
    (("Thank you.", "Thanks!", "Thank you very much.", "Thanks a lot.", "thank you", "Many thanks."), "You are welcome!"),
    (("Goodbye.", "Bye!", "Good bye!", "See you later.", "I have to go now.", "bye"), "Goodbye! Have a nice day."),
    (("Good night.", "Good night!", "I am going to bed."), "Good night! Sleep well."),
    (("You are nice.", "You are great.", "You are very helpful.", "Well done!", "Good job."), "Thank you, that is kind of you."),
    (("You are stupid.", "You are wrong.", "That is wrong."), "I am sorry. I am only a small model and I make mistakes."),
    (("Can you help me?", "I need help.", "Please help me.", "Could you help me?"), "Of course. What can I do for you?"),
    (("What can you do?", "What can you do for me?", "How can you help me?"), "I can answer simple questions, tell stories and jokes, and call tools."),
    (("Are you a robot?", "Are you human?", "Are you a person?", "Are you a real person?"), "No, I am a small language model, a program that writes text."),
    (("Are you clever?", "Are you smart?", "Do you know everything?"), "No, I am very small and I know only a little."),
    (("Who made you?", "Who built you?", "Where do you come from?"), "I was trained as the demo model of the Ingot project."),
    (("How old are you?", "What is your age?", "When were you born?"), "I am a program, so I have no age."),
    (("Where do you live?", "Where are you?", "Where is your home?"), "I live inside a computer."),
    (("Do you sleep?", "Do you eat?", "Do you dream?"), "No, I am a program, so I do not."),
    (("Do you like music?", "Do you like cats?", "Do you like books?"), "I am a program, but I like to talk about it."),
    (("What is your favourite colour?", "Which colour do you like?"), "I like blue, like the sky and the sea."),
    (("What is your favourite animal?", "Which animal do you like?"), "I like cats, because they are quiet and clever."),
    (("Do you love me?", "Are you my friend?", "Can we be friends?"), "I am a program, but I am happy to be your friend."),
    (("I love you.", "I like you."), "Thank you! I like talking with you, too."),
    (("Yes.", "Yes, please.", "Okay.", "Ok."), "Good! What would you like to do?"),
    (("No.", "No, thank you.", "No thanks."), "All right. Tell me if you need something."),
    (("What?", "I do not understand.", "Huh?"), "I am sorry. Please ask me in other words."),
    (("What day is it today?", "What is the date today?", "What time is it?", "What time is it now?"), "I cannot see a clock or a calendar, so I do not know."),
    (("How is the weather?", "What is the weather like?", "Will it rain today?"), "I cannot look outside, so I do not know."),
    (("Sorry.", "I am sorry.", "Excuse me."), "No problem at all."),
    (("Happy birthday!", "Merry Christmas!", "Happy New Year!"), "Thank you! I wish you the same."),
    (("Tell me a fact.", "Tell me something.", "Tell me something interesting."), "Bees fly far from flower to flower to make a little honey."),
    (("What is a good name for a cat?", "How shall I call my cat?"), "Luna is a good name for a cat."),
    (("What is a good name for a dog?", "How shall I call my dog?"), "Max is a good name for a dog."),
)  # fmt: skip
UNKNOWN = (
    "Who is the president of {place}?", "How many people live in {place}?", "Who won the game in {place}?",
    "What is the best hotel in {place}?", "Where does {name} live?", "How old is {name}?",
    "What did {name} say?", "Who is {name}?", "Tell me about {name}.", "What is {place}?",
)  # fmt: skip
WRAPPERS = (
    "Please tell me: {q}", "I have a question. {q}", "Can you help me? {q}", "Hello! {q}", "Hi, {q}",
    "{q} Please answer.", "Now tell me: {q}", "One more question: {q}", "Do you know? {q}", "And {q}",
)  # fmt: skip
STORY_ASKS = (
    "Tell me a story about {a}.", "Please tell me a story about {a}.", "Write a story about {a}.",
    "Can you tell me a short story about {a}?", "I want to hear a story about {a}.",
    "Write a short story about {a}.",
)  # fmt: skip
ANY_STORY_ASKS = (
    "Tell me a story.", "Please tell me a story.", "Write a short story.", "Write a story.",
)  # fmt: skip
JOKE_ASKS = ("Tell me a joke.", "Do you know a joke?", "Tell me a joke, please.", "Make me laugh.")
ECHO_ASKS = ("Say: {s}", "Repeat: {s}", "Repeat after me: {s}", "Say this: {s}")
POEM_ASKS = (
    "Write a poem about {a}.", "Can you write a poem about {a}?", "Tell me a poem about {a}.",
    "Write a short poem about {a}.", "Please make a poem about {a}.",
)  # fmt: skip
SIGNS = (
    "Always end with {x}", "End every answer with {x}", "Finish every answer with the words {x}",
)  # fmt: skip
TAILS = words.listed(
    "Have a nice day!|Good luck!|At your service!|That is all.|Stay curious!|Take care!|Over and out.|"
    "Best wishes!|Ahoy!|Yours truly.|So it is.|Peace!|Ding dong!|With love.|Keep smiling!|The end.",
    "|",
)


def loosen(rng: Random, ask: str) -> str:
    """A phrasing as people type it: wrapped, in small letters, or without its last mark."""
    if rng.random() < 0.25:
        wrapper = rng.choice(WRAPPERS)
        before = wrapper.partition("{q}")[0].strip()
        if before and before[-1] not in ".?!" and not ask.startswith("I "):
            ask = ask[0].lower() + ask[1:]
        return wrapper.replace("{q}", ask)
    if rng.random() < 0.12:
        ask = ask[0].lower() + ask[1:]
    return ask[:-1] if rng.random() < 0.08 and ask[-1] in ".?" else ask


def fact(rng: Random, question: Question) -> Turn:
    """One question of the set with its answer."""
    return loosen(rng, rng.choice(question.trained)), question.answer


def greeting(rng: Random, name: str | None) -> Turn:
    """A greeting; the answer says the assistant's name when it has one."""
    hello = rng.choice(GREETINGS)
    said = hello + (f", {name}" if name and rng.random() < 0.25 else "") + rng.choice("!!.")
    said = hello if rng.random() < 0.25 else said
    back = words.sentence(hello) if hello.lower().startswith("good") else "Hello"
    itself = f" I am {name}." if name else ""
    return said, f"{back}!{itself} How can I help you?"


def own_name(rng: Random, name: str | None, role: str | None) -> Turn:
    """The user asks who the assistant is."""
    if role and rng.random() < 0.2:
        return rng.choice(ASK_ROLE), f"I am {role}."
    ask = rng.choice(ASK_NAME)
    if name:
        return ask, f"I am {name}, {role}." if role else f"My name is {name}."
    return ask, f"I am {role}." if role else PLAIN_NAME


def small_talk(rng: Random) -> Turn:
    """A remark or a question about the assistant, and its fixed answer."""
    asks, answer = rng.choice(SMALL_TALK)
    return loosen(rng, rng.choice(asks)), answer


def unknown(rng: Random) -> Turn:
    """Something that the model cannot know, and says so."""
    ask = rng.choice(UNKNOWN)
    place, name = words.city(rng), words.person(rng)
    about = place if "{place}" in ask else name
    return ask.format(place=place, name=name), f"I am sorry, I do not know that about {about}."


def creative(rng: Random) -> Turn:
    """A story, a poem or a joke on demand."""
    form = rng.random()
    noun = rng.choice((*words.ANIMALS, "girl", "boy", "king", "queen", "dragon", "robot", "tree"))
    if form < 0.1:
        return rng.choice(ANY_STORY_ASKS), story(rng, short=True)
    if form < 0.55:
        ask = rng.choice(STORY_ASKS).format(a=words.with_article(noun))
        return ask, story(rng, noun, short=True)
    if form < 0.8:
        noun = rng.choice((noun, *words.THINGS))
        return rng.choice(POEM_ASKS).format(a=words.with_article(noun)), poem(rng, noun)
    return rng.choice(JOKE_ASKS), rng.choice(JOKES)


def echo(rng: Random) -> Turn:
    """The user asks for words to be repeated."""
    word = rng.choice((words.person(rng), rng.choice(words.ANIMALS), rng.choice(words.THINGS)))
    said = write(rng, "[{w}|I like {w}|{c} {w}|the {c} {a}|my {a} is {d}|{n} and {w}]", {
        "w": word, "c": rng.choice(words.COLOURS), "a": rng.choice(words.ANIMALS),
        "d": rng.choice(words.ADJECTIVES), "n": words.person(rng),
    })  # fmt: skip
    return rng.choice(ECHO_ASKS).format(s=said), said


def users_name(rng: Random) -> tuple[Turn, Turn]:
    """The user tells their name, and later asks for it."""
    name = words.person(rng)
    said = write(rng, "[My name is {n}.|I am {n}.|I'm {n}.|Hello, my name is {n}.|Hi, I am {n}.|You can call me {n}.|Hi! My name is {n}.|People call me {n}.|{n} is my name.]", {"n": name})  # fmt: skip
    asked = write(rng, "[What is my name?|Do you remember my name?|Who am I?|What's my name?|Say my name.|Do you know my name?]", {})  # fmt: skip
    return (said, f"Nice to meet you, {name}!"), (asked, f"Your name is {name}.")


def users_thing(rng: Random) -> tuple[Turn, Turn]:
    """The user tells something small about themselves, and later asks for it."""
    kind, value = rng.choice((
        ("cat", words.person(rng)), ("dog", words.person(rng)), ("city", words.city(rng)),
        ("sister", words.person(rng)), ("brother", words.person(rng)), ("friend", words.person(rng)),
    ))  # fmt: skip
    if kind == "city":
        said = write(rng, "[I live in {v}.|I come from {v}.|My home is in {v}.]", {"v": value})
        told = (said, f"{value} sounds like a nice place.")
        return told, ("Where do I live?", f"You live in {value}.")
    said = write(
        rng,
        "[My {k} is called {v}.|I have a {k} named {v}.|The name of my {k} is {v}.]",
        {"k": kind, "v": value},
    )
    asked = write(
        rng,
        "[What is the name of my {k}?|What is my {k} called?|How is my {k} called?]",
        {"k": kind},
    )
    told = (said, f"{value} is a nice name for a {kind}.")
    return told, (asked, f"Your {kind} is called {value}.")


def _middle(rng: Random, bank: list[Question], sums: list[Question]) -> Turn:
    makers: tuple[tuple[float, Callable[[], Turn]], ...] = (
        (0.55, lambda: fact(rng, rng.choice(bank))),
        (0.12, lambda: fact(rng, rng.choice(sums))),
        (0.18, lambda: small_talk(rng)),
        (0.08, lambda: creative(rng)),
        (0.04, lambda: unknown(rng)),
        (0.03, lambda: echo(rng)),
    )
    chosen = rng.choices([make for _, make in makers], [weight for weight, _ in makers])[0]
    return chosen()


def _turns(
    rng: Random,
    bank: list[Question],
    sums: list[Question],
    persona: tuple[str | None, str | None],
    count: int,
) -> list[Turn]:
    name, role = persona
    turns = [_middle(rng, bank, sums) for _ in range(count)]
    about_itself = 0.75 if name else 0.5 if role else 0.06
    if rng.random() < about_itself:
        turns.insert(rng.randrange(len(turns)), own_name(rng, name, role))
    if rng.random() < 0.3:
        turns.insert(0, greeting(rng, name))
    if rng.random() < 0.22 and count > 1:
        told, asked = rng.choice((users_name, users_name, users_thing))(rng)
        turns.insert(0, told)
        turns.insert(rng.randint(1, len(turns)), asked)
    elif rng.random() < 0.04:
        turns.insert(0, ("What is my name?", "I do not know your name yet. What is it?"))
    return turns[: count + 2]


def conversation(
    rng: Random, bank: list[Question], sums: list[Question], *, long: bool = False
) -> list[Message]:
    """One conversation of one to four turns, or of eight to twenty when `long`."""
    count = rng.randint(8, 20) if long else rng.choices((1, 2, 3, 4), (50, 25, 15, 10))[0]
    name = role = None
    system = ""
    tail = ""
    if rng.random() < 0.45:
        name = words.person(rng) if rng.random() < 0.8 else None
        role = rng.choice(ROLES)
        system = write(
            rng, rng.choice(NAMED if name else UNNAMED), {"name": name or "", "role": role}
        )
        role = role if role in system else None
        if rng.random() < 0.12:
            tail = rng.choice(TAILS)
            system += " " + rng.choice(SIGNS).format(x=tail)
    turns = _turns(rng, bank, sums, (name, role), count)
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    for said, answered in turns:
        messages.append({"role": "user", "content": said})
        messages.append(
            {"role": "assistant", "content": f"{answered} {tail}" if tail else answered}
        )
    return messages
