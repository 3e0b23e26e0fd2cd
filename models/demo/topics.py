"""The functions that training conversations offer, and the ways in which people ask for them.

Owns data: names, parameters, phrasings (in the notation of `grammar.py`), results and answers of
each function, and how values for a parameter are drawn.
"""
# ruff: noqa: E501  (one sentence a line is easier to read than wrapped ones)

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from models.demo import words
from models.demo.grammar import write

Result = str | dict[str, object]


@dataclass(frozen=True)
class Topic:
    """One kind of function. `slots` maps a slot of the phrasings to its possible parameter names."""

    purpose: str  # ends the sentence "I have no tool to ..."
    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    slots: dict[str, str]
    asks: tuple[str, ...]
    result: Callable[[Random, dict[str, str]], Result]
    answer: str
    integers: frozenset[str] = field(default_factory=frozenset)

    def draw(self, rng: Random, slot: str) -> str:
        """A value for a slot, as it stands in the question."""
        return DRAWS[slot](rng)


SKIES = ("sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear", "stormy")
SONGS = (
    "Blue Moon", "Yesterday", "Silent Night", "Summer Rain", "Let It Snow", "Moon River", "Jingle Bells",
)  # fmt: skip
MESSAGES = (
    "I [will be|am] [late|home soon|on my way|very tired|at the station|in the garden]",
    "the [train|bus|dog|letter|cake|food] is [late|here|ready|gone]",
    "[please|do not forget to] [buy|bring] [some |][bread|milk|eggs|tea|flowers|apples|the keys]",
    "[happy birthday|good luck|thank you for the {food}|see you [tomorrow|on {day}]|dinner is ready]",
    "we meet at [five|six|seven|eight] [at home|in the park|at the station]",
    "I [miss you|love you|found your {thing}|lost my {thing}|made some {food}]",
)
QUERIES = (
    "[old|new|good|cheap|famous] [books|songs|hotels|restaurants|stories|shoes|films] [in {city}|about {animal}s|for children|]",
    "how to [cook|bake|make] {food}",
    "how to [build|paint|fix|clean] {a thing}",
    "the history of {city}",
    "{animal}s and {animal2}s",
    "{colour} {thing}s",
    "[who is|where is|what is] {name} {surname}",
    "{name} {surname}",
)
DAYS = words.listed(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday today tomorrow tonight"
)
STOCKS = words.listed(
    "Apple Google Tesla Amazon Nvidia Intel Sony Toyota Ford Boeing Siemens Nokia"
)


def _message(rng: Random) -> str:
    return write(rng, rng.choice(MESSAGES), _nouns(rng)).strip()


def _query(rng: Random) -> str:
    return write(rng, rng.choice(QUERIES), _nouns(rng)).strip()


def _nouns(rng: Random) -> dict[str, str]:
    return {
        "food": rng.choice(words.FOODS), "thing": rng.choice(words.THINGS), "day": rng.choice(DAYS[:7]),
        "animal": rng.choice(words.ANIMALS), "animal2": rng.choice(words.ANIMALS),
        "colour": rng.choice(words.COLOURS), "city": words.city(rng), "name": words.person(rng),
        "surname": rng.choice(words.SURNAMES),
    }  # fmt: skip


def _phrase(rng: Random) -> str:
    nouns = _nouns(rng)
    texts = (
        "good morning", "thank you", "hello", "how are you", "good night", "I love you", "see you soon",
        f"I like {nouns['food']}", f"the {nouns['animal']} is {nouns['colour']}", f"my {nouns['thing']}",
        f"a {nouns['colour']} {nouns['thing']}", f"where is the {nouns['thing']}", nouns["animal"],
    )  # fmt: skip
    return rng.choice(texts)


def _number(rng: Random) -> str:
    low_high = ((1, 20), (10, 99), (100, 999), (1000, 9999))
    drawn = [rng.randint(low, high) for low, high in low_high]
    return str(rng.choice(drawn))


def _title(rng: Random) -> str:
    made = f"{rng.choice(words.COLOURS).title()} {rng.choice(words.THINGS).title()}"
    song, new = rng.choice(SONGS), words.made_up(rng)
    artist = f"{words.person(rng)} {rng.choice(words.SURNAMES)}"
    return rng.choice((song, made, new, artist))


DRAWS: dict[str, Callable[[Random], str]] = {
    "city": words.city,
    "city2": words.city,
    "name": words.person,
    "text": _message,
    "query": _query,
    "phrase": _phrase,
    "language": lambda rng: rng.choice(words.LANGUAGES),
    "minutes": lambda rng: str(rng.choice((rng.randint(1, 60), rng.randint(1, 20) * 5))),
    "people": lambda rng: str(rng.randint(2, 12)),
    "a": _number,
    "b": _number,
    "title": _title,
    "company": lambda rng: rng.choice(STOCKS) if rng.random() < 0.5 else words.made_up(rng),
    "day": lambda rng: rng.choice(DAYS),
    "place": lambda rng: rng.choice((words.made_up(rng), f"{words.made_up(rng)} {rng.choice(('Inn', 'Grill', 'House', 'Garden'))}", f"the {rng.choice(words.COLOURS).title()} {rng.choice(words.ANIMALS).title()}")),
    "thing": lambda rng: rng.choice((*words.THINGS, *words.FOODS)),
    "room": lambda rng: rng.choice(words.listed("kitchen bedroom bathroom hall garage office garden cellar")),
    "word": lambda rng: rng.choice((*words.THINGS, *words.ANIMALS, *words.ADJECTIVES)),
    "email": lambda rng: f"{words.person(rng).lower()}@{words.made_up(rng).lower()}.com",
    "percent": lambda rng: str(rng.randint(0, 20) * 5),
}  # fmt: skip


def _sum(_: Random, values: dict[str, str]) -> Result:
    return str(int(values["a"]) + int(values["b"]))


def _product(_: Random, values: dict[str, str]) -> Result:
    return str(int(values["a"]) * int(values["b"]))


def _clock(rng: Random) -> str:
    return f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"


TOPICS: tuple[Topic, ...] = (
    Topic(
        "look up the weather",
        ("get_weather", "weather", "get_current_weather", "fetch_weather", "weather_lookup", "current_weather"),
        ("Get the weather in a city", "Get the current weather for a place", "Look up the weather"),
        {"city": "city|location|place|town"},
        ("What is the weather [in|like in] {city}?", "How is the weather in {city}[| today| now]?", "What's the weather in {city}?",
         "Is it [cold|warm|sunny|raining|hot] in {city}[| today| now]?", "Tell me the weather in {city}.", "Weather in {city}?",
         "Will it [rain|snow] in {city}[| today]?", "Do I need [an umbrella|a coat|a hat] in {city}?", "what is the weather like in {city}", "How [warm|cold|hot] is it in {city}?"),
        lambda rng, v: {"temperature": rng.randint(-9, 35), "sky": rng.choice(SKIES)},
        "It is {sky} in {city}, with {temperature} degrees.",
    ),
    Topic(
        "look up the time",
        ("get_time", "current_time", "get_current_time", "time_in", "clock", "local_time"),
        ("Get the time in a city", "Tell the current time at a place", "Look up the local time"),
        {"city": "city|place|location|timezone"},
        ("What time is it in {city}?", "What is the time in {city}[| now]?", "Tell me the time in {city}.", "How late is it in {city}[| now]?",
         "Do you know what time it is in {city}?", "what time is it in {city}", "Current time in {city}?"),
        lambda rng, v: {"time": _clock(rng)},
        "It is {time} in {city}.",
    ),
    Topic(
        "add numbers",
        ("add", "add_numbers", "sum", "plus", "calculate_sum"),
        ("Add two numbers", "Compute the sum of two numbers"),
        {"a": "a|x|first", "b": "b|y|second"},
        ("What is {a} plus {b}?", "What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?", "What is the sum of {a} and {b}?", "{a} + {b}?", "Please add {a} and {b}."),
        _sum, "{a} plus {b} is {result}.", frozenset("ab"),
    ),
    Topic(
        "multiply numbers",
        ("multiply", "times", "product", "multiply_numbers"),
        ("Multiply two numbers", "Compute the product of two numbers"),
        {"a": "a|x|first", "b": "b|y|second"},
        ("What is {a} times {b}?", "Multiply {a} by {b}.", "How much is {a} times {b}?", "What is the product of {a} and {b}?", "Please multiply {a} and {b}."),
        _product, "{a} times {b} is {result}.", frozenset("ab"),
    ),
    Topic(
        "send a message",
        ("send_message", "send_text", "message", "text_message", "send_sms"),
        ("Send a message to a person", "Send a text message to someone"),
        {"name": "to|recipient|person|name", "text": "text|message|body|content"},
        ("Send a message to {name}: {text}.", "Tell {name} that {text}.", "Write to {name}: {text}.", "Send {name} the message {text}.",
         "Message {name}: {text}.", "Please tell {name}: {text}.", "Text {name} that {text}.", "Let {name} know that {text}."),
        lambda rng, v: {"status": "sent"},
        "I have sent your message to {name}.",
    ),
    Topic(
        "send an email",
        ("send_email", "send_mail", "email", "mail"),
        ("Send an email", "Send an email to an address"),
        {"email": "to|address|email", "text": "text|body|message"},
        ("Send an email to {email}: {text}.", "Write an email to {email} that says {text}.", "Mail {email}: {text}.", "Email {email} that {text}."),
        lambda rng, v: {"status": "sent"},
        "I have sent your email to {email}.",
    ),
    Topic(
        "search the web",
        ("search", "web_search", "search_web", "google", "find", "lookup"),
        ("Search the web", "Search the internet for a query", "Find pages on the web"),
        {"query": "query|q|search|terms"},
        ("Search for {query}.", "Search the web for {query}.", "Find {query} on the internet.", "Look up {query}.", "Please search for {query}.", "Can you look up {query}?", "Google {query}."),
        lambda rng, v: {"results": rng.randint(2, 90)},
        "I found {results} pages about {query}.",
    ),
    Topic(
        "set a timer",
        ("set_timer", "start_timer", "timer", "countdown"),
        ("Set a timer", "Start a timer for some minutes"),
        {"minutes": "minutes|duration|time"},
        ("Set a timer for {minutes} minutes.", "Start a timer of {minutes} minutes.", "Timer for {minutes} minutes.", "Wake me in {minutes} minutes.", "Please set a {minutes} minute timer.", "Tell me when {minutes} minutes are over."),
        lambda rng, v: {"status": "ok"},
        "The timer is set for {minutes} minutes.", frozenset({"minutes"}),
    ),
    Topic(
        "play music",
        ("play_music", "play_song", "play", "music_player", "start_music"),
        ("Play a song", "Play music", "Play a song or an artist"),
        {"title": "song|title|track|query"},
        ("Play {title}.", "Please play {title}.", "Play the song {title}.", "I want to hear {title}.", "Can you play {title}?", "Put on {title}."),
        lambda rng, v: {"status": "playing"},
        "Now playing {title}.",
    ),
    Topic(
        "translate a text",
        ("translate", "translate_text", "translation", "translator"),
        ("Translate a text", "Translate text to another language"),
        {"phrase": "text|phrase|sentence", "language": "language|target|to"},
        ("Translate {phrase} to {language}.", "Translate '{phrase}' into {language}.", "What is '{phrase}' in {language}?", "Please translate {phrase} into {language}.", "How do you say '{phrase}' in {language}?"),
        lambda rng, v: words.made_up(rng).lower() + " " + words.made_up(rng).lower(),
        "In {language} that is: {result}.",
    ),
    Topic(
        "look up stock prices",
        ("get_stock_price", "stock_price", "get_price", "stock_quote"),
        ("Get the price of a stock", "Look up the stock price of a company"),
        {"company": "company|symbol|stock|name"},
        ("What is the stock price of {company}?", "How much is a share of {company}?", "Tell me the stock price of {company}.", "What does {company} stock cost?", "How is the stock of {company}?", "Stock price of {company}?"),
        lambda rng, v: {"price": rng.randint(5, 900)},
        "One share of {company} costs {price} dollars.",
    ),
    Topic(
        "book a table",
        ("book_table", "reserve_table", "book_restaurant", "make_reservation"),
        ("Book a table in a restaurant", "Reserve a table"),
        {"place": "restaurant|place|name", "people": "people|guests|seats", "day": "day|date|when"},
        ("Book a table for {people} at {place} [for|on] {day}.", "Reserve a table at {place} for {people} people on {day}.", "I need a table for {people} at {place} on {day}.", "Please book {place} for {people} people on {day}."),
        lambda rng, v: {"status": "booked"},
        "Your table for {people} at {place} is booked.", frozenset({"people"}),
    ),
    Topic(
        "find a way",
        ("get_route", "find_route", "directions", "get_directions", "route"),
        ("Find the way between two places", "Get directions from one city to another"),
        {"city": "from|start|origin", "city2": "to|end|destination"},
        ("How do I get from {city} to {city2}?", "Find the way from {city} to {city2}.", "How far is it from {city} to {city2}?", "Show me the way from {city} to {city2}.", "I want to go from {city} to {city2}."),
        lambda rng, v: {"km": rng.randint(3, 900)},
        "It is {km} kilometres from {city} to {city2}.",
    ),
    Topic(
        "find flights",
        ("book_flight", "find_flight", "search_flights", "get_flights"),
        ("Find a flight to a city", "Search flights"),
        {"city": "destination|city|to", "day": "date|day|when"},
        ("Find a flight to {city} [for|on] {day}.", "I want to fly to {city} on {day}.", "Is there a flight to {city} on {day}?", "Book a flight to {city} for {day}."),
        lambda rng, v: {"time": _clock(rng), "price": rng.randint(40, 900)},
        "There is a flight to {city} at {time} for {price} dollars.",
    ),
    Topic(
        "write a list",
        ("add_to_list", "shopping_list", "add_item", "remember_item"),
        ("Add an item to the shopping list", "Put something on a list"),
        {"thing": "item|thing|product|name"},
        ("Put {thing} on my list.", "Add {thing} to my shopping list.", "I need to buy {thing}.", "Write {thing} on the list.", "Put {thing} on the shopping list, please."),
        lambda rng, v: {"status": "added"},
        "I have put {thing} on your list.",
    ),
    Topic(
        "switch lights",
        ("turn_on_light", "light_on", "switch_on_light", "lights"),
        ("Turn on the light in a room", "Switch on the light"),
        {"room": "room|place|where"},
        ("Turn on the light in the {room}.", "Switch on the {room} light.", "Light in the {room}, please.", "It is dark in the {room}.", "Make light in the {room}."),
        lambda rng, v: {"status": "on"},
        "The light in the {room} is on.",
    ),
    Topic(
        "look up people",
        ("get_user", "find_contact", "phone_number", "get_contact", "lookup_person"),
        ("Find the phone number of a person", "Look up a contact"),
        {"name": "name|person|contact|user"},
        ("What is the phone number of {name}?", "Find the number of {name}.", "How can I call {name}?", "Give me {name}'s number.", "Look up {name}'s phone number."),
        lambda rng, v: {"number": "-".join((str(rng.randint(100, 999)), str(rng.randint(1000, 9999))))},
        "The number of {name} is {number}.",
    ),
    Topic(
        "set reminders",
        ("set_reminder", "remind_me", "add_reminder", "create_event"),
        ("Set a reminder", "Remind the user of something on a day"),
        {"text": "text|what|title", "day": "day|date|when"},
        ("Remind me on {day}: {text}.", "Set a reminder for {day}: {text}.", "On {day}, remind me that {text}.", "Reminder for {day}: {text}."),
        lambda rng, v: {"status": "ok"},
        "I will remind you on {day}.",
    ),
    Topic(
        "look up words",
        ("define_word", "dictionary", "get_definition", "define"),
        ("Look up a word in a dictionary", "Get the definition of a word"),
        {"word": "word|term"},
        ("Look up the word {word}.", "What does the word {word} mean?", "Find {word} in the dictionary.", "What does the dictionary say about {word}?"),
        lambda rng, v: f"a thing that is {rng.choice(words.ADJECTIVES)} and {rng.choice(words.COLOURS)}",
        "The dictionary says: {result}.",
    ),
    Topic(
        "set the volume",
        ("set_volume", "volume", "change_volume", "set_brightness"),
        ("Set a level in percent", "Set the level of a device"),
        {"percent": "level|percent|value"},
        ("Set the volume to {percent}.", "Set it to {percent} percent.", "Volume {percent}, please.", "Change the level to {percent} percent.", "Turn it to {percent} percent."),
        lambda rng, v: {"status": "ok"},
        "It is now at {percent} percent.", frozenset({"percent"}),
    ),
)  # fmt: skip
