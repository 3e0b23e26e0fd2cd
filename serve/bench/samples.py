"""What a benchmark asks: prompts and how long their answers are to be, from files or from chance.

Owns the datasets, by vLLM's names. Knows no server; every one is the same for the same seed.

    random             ids drawn from the vocabulary, behind a common prefix if asked for
    prefix_repetition  a few long prefixes, each before many different suffixes
    sharegpt           conversations: the first turn is the prompt, the second's length the answer's
    burstgpt           lengths of real requests to GPT-4, of the CSV file of that name; drawn ids
    custom             JSON lines with "prompt", and perhaps "output_tokens"
    multi_turn         conversations of drawn ids, each turn behind all turns and answers before it
    custom_audio       JSON lines with "audio", a recording's path from the file's own folder
    random-rerank      a query and documents of drawn ids, half of `random_input_len` tokens each
"""

import csv
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice, starmap
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine.tokenizers.tokenizer import Tokenizer

ASSIGNMENTS = ("random", "round-robin")
_ANSWER = 32  # tokens of an answer in a conversation
# of ShareGPT, as vLLM: longer ones would not fit into every model, shorter ones are no work
_SHORTEST, _LONGEST_PROMPT, _LONGEST = 4, 1024, 2048


@dataclass(frozen=True)
class Sample:
    """One request: a prompt as text and as ids, and the tokens to generate.

    A conversation is its first turn, and what is asked `then`, after each answer. The ids of a
    turn that is sent are those of the whole conversation up to it, and its text is its own.
    """

    text: str
    token_ids: list[int]
    output_len: int
    then: tuple["Sample", ...] = ()
    history: tuple[str, ...] = ()  # questions and answers before it, in turn
    documents: tuple[str, ...] = ()  # that are to be ranked for it
    audio: Path | None = None  # a recording to be written down, instead of a prompt
    model: str | None = None  # an adapter, instead of the model that the client names

    @property
    def turns(self) -> tuple["Sample", ...]:
        """All that is asked."""
        return (self, *self.then)

    def next(self, answer: str, tokenizer: Tokenizer) -> "Sample":
        """The turn after this one, which was answered so; a text may be more tokens when it is
        tokenised again, and they count as `output_len` at the most."""
        turn, *rest = self.then
        said = tokenizer.encode(answer, add_special_tokens=False)[: self.output_len]
        ids = [*self.token_ids, *said, *turn.token_ids]
        history = (*self.history, self.text, answer)
        return Sample(
            turn.text, ids, turn.output_len, tuple(rest), history, model=self.model
        )  # fmt: skip


@dataclass(frozen=True)
class DatasetOptions:
    """Which samples; lengths are in tokens."""

    name: str = "random"
    path: Path | None = None
    num_prompts: int = 1000
    seed: int = 0
    random_input_len: int = 1024
    random_output_len: int = 128
    random_range_ratio: float = 0.0  # lengths vary by this share, both ways
    random_prefix_len: int = 0
    random_batch_size: int = 1  # documents of a query
    prefix_len: int = 256
    suffix_len: int = 256
    num_prefixes: int = 10
    num_turns: int = 10
    first_len: int = 600  # of a conversation's first turn, its instructions included
    message_len: int = 24  # of each turn after it
    output_len: int | None = None  # of every answer, whatever the dataset says


def that_fits(
    options: DatasetOptions, context: int, *, wanted: int | None = None
) -> DatasetOptions:
    """The same with random prompts that leave room for their answers in `context` tokens.

    Raises ConfigError where so many are `wanted` that they do not.
    """
    longest = (context - options.random_prefix_len) / (1 + options.random_range_ratio)
    room = int(longest) - options.random_output_len
    if wanted is not None and wanted > room:
        raise ConfigError(
            f"--input-len {wanted} and answers of {options.random_output_len} tokens exceed the "
            f"model's context of {context}; use at most {max(1, room)}."
        )
    return replace(options, random_input_len=max(1, min(options.random_input_len, room)))


def make_samples(options: DatasetOptions, tokenizer: Tokenizer) -> list[Sample]:
    """The samples; raises ConfigError for an unknown dataset, or a file that does not fit it."""
    if options.name not in _DATASETS:
        names = ", ".join(_DATASETS)
        raise ConfigError(f"--dataset-name must be one of {names}; got {options.name!r}.")
    found = list(_DATASETS[options.name](options, tokenizer, random.Random(options.seed)))
    if not found:
        raise ConfigError(f"{options.path} holds no prompt that can be used.")
    return found


def with_adapters(
    samples: Sequence[Sample], names: Sequence[str], assignment: str, seed: int
) -> list[Sample]:
    """The same, each for one of these adapters; as they are if there are none."""
    if not names:
        return [*samples]
    rng = random.Random(seed)
    drawn = cycle(names) if assignment == "round-robin" else iter(lambda: rng.choice(names), None)
    return [replace(sample, model=name) for sample, name in zip(samples, drawn, strict=False)]


class _Words:
    """Random ids that stay the same number of tokens when their text is tokenised again, mostly."""

    def __init__(self, tokenizer: Tokenizer, rng: random.Random) -> None:
        self._tokenizer, self._rng = tokenizer, rng
        self._ids = [i for i in range(tokenizer.vocab_size) if i not in tokenizer.special_ids]

    def draw(self, count: int) -> list[int]:
        return self._rng.choices(self._ids, k=count)

    def sample(self, ids: list[int], output_len: int) -> Sample:
        return Sample(self._tokenizer.decode(ids), ids, output_len)


def _random(options: DatasetOptions, tokenizer: Tokenizer, rng: random.Random) -> Iterator[Sample]:
    ratio = options.random_range_ratio
    if not 0 <= ratio < 1:
        raise ConfigError(f"--random-range-ratio must be from 0 up to 1, got {ratio}.")
    words = _Words(tokenizer, rng)
    prefix = words.draw(options.random_prefix_len)

    def around(length: int) -> int:
        return rng.randint(max(1, round(length * (1 - ratio))), max(1, round(length * (1 + ratio))))

    for _ in range(options.num_prompts):
        ids = prefix + words.draw(around(options.random_input_len))
        yield words.sample(ids, options.output_len or around(options.random_output_len))


def _prefix_repetition(
    options: DatasetOptions, tokenizer: Tokenizer, rng: random.Random
) -> Iterator[Sample]:
    words = _Words(tokenizer, rng)
    prefixes = [words.draw(options.prefix_len) for _ in range(options.num_prefixes)]
    order = [index % options.num_prefixes for index in range(options.num_prompts)]
    rng.shuffle(order)
    for index in order:
        yield words.sample(
            prefixes[index] + words.draw(options.suffix_len), options.output_len or 128
        )


def _random_rerank(
    options: DatasetOptions, tokenizer: Tokenizer, rng: random.Random
) -> Iterator[Sample]:
    words, length = _Words(tokenizer, rng), max(1, options.random_input_len // 2)
    if options.random_batch_size < 1:
        raise ConfigError(f"--random-batch-size must be at least 1: {options.random_batch_size}.")
    for _ in range(options.num_prompts):
        query, *documents = (
            words.sample(words.draw(length), 0) for _ in range(1 + options.random_batch_size)
        )
        ids = [*query.token_ids, *(i for each in documents for i in each.token_ids)]
        yield Sample(query.text, ids, 0, documents=tuple(each.text for each in documents))


def _multi_turn(
    options: DatasetOptions, tokenizer: Tokenizer, rng: random.Random
) -> Iterator[Sample]:
    """As many conversations as give at least `num_prompts` requests."""
    words, length = _Words(tokenizer, rng), options.output_len or _ANSWER
    if options.num_turns < 1:
        raise ConfigError(f"--multi-turn-num-turns must be at least 1, got {options.num_turns}.")
    for _ in range(-(-options.num_prompts // options.num_turns)):
        first = words.sample(words.draw(options.first_len), length)
        rest = [words.draw(options.message_len) for _ in range(options.num_turns - 1)]
        yield replace(first, then=tuple(words.sample(ids, length) for ids in rest))


def shared_share(options: DatasetOptions) -> float:
    """Of all prompt tokens of `multi_turn`, how many an earlier turn had or was answered with."""
    grown = options.message_len + (options.output_len or _ANSWER)
    prompts = [options.first_len + turn * grown for turn in range(options.num_turns)]
    new = options.first_len + options.message_len * (options.num_turns - 1)
    return 1 - new / sum(prompts)


def _sharegpt(
    options: DatasetOptions, tokenizer: Tokenizer, rng: random.Random
) -> Iterator[Sample]:
    conversations = _read_json(options.path)
    if not isinstance(conversations, list):
        raise ConfigError(f"{options.path} is no ShareGPT file: it must be a list.")
    turns = [
        [str(turn.get("value", "")) for turn in entry.get("conversations", [])]
        for entry in conversations
        if isinstance(entry, dict)
    ]
    pairs = [(one[0], one[1]) for one in turns if len(one) >= 2 and one[0] and one[1]]
    rng.shuffle(pairs)
    fitting = (
        s for s in starmap(partial(_answered, options, tokenizer), pairs) if _fits(s, options)
    )
    yield from islice(fitting, options.num_prompts)


def _answered(options: DatasetOptions, tokenizer: Tokenizer, prompt: str, answer: str) -> Sample:
    length = options.output_len or len(tokenizer.encode(answer, add_special_tokens=False))
    return Sample(prompt, tokenizer.encode(prompt), length)


def _fits(sample: Sample, options: DatasetOptions) -> bool:
    asked, answered = len(sample.token_ids), sample.output_len
    long_enough = options.output_len is not None or answered >= _SHORTEST
    return _SHORTEST <= asked <= _LONGEST_PROMPT and asked + answered <= _LONGEST and long_enough


def _burstgpt(
    options: DatasetOptions, tokenizer: Tokenizer, rng: random.Random
) -> Iterator[Sample]:
    """As vLLM: those of GPT-4 that were answered. Source: Wang et al., arXiv 2401.17644."""
    words = _Words(tokenizer, rng)
    lengths = []
    for number, row in enumerate(csv.DictReader(_read(options.path).splitlines()), 2):
        try:
            asked, answered = int(row["Request tokens"]), int(row["Response tokens"])
            if row["Model"] == "GPT-4" and asked > 0 and answered > 0:
                lengths.append((asked, answered))
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                f"{options.path}, line {number}: it must have the columns Model, Request tokens "
                "and Response tokens."
            ) from None
    rng.shuffle(lengths)
    for asked, answered in lengths[: options.num_prompts]:
        yield words.sample(words.draw(asked), options.output_len or answered)


def _custom(options: DatasetOptions, tokenizer: Tokenizer, rng: random.Random) -> Iterator[Sample]:
    for prompt, entry in _lines(options, "prompt"):
        length = options.output_len or int(entry.get("output_tokens", 256))
        yield Sample(prompt, tokenizer.encode(prompt), max(1, length))


def _custom_audio(
    options: DatasetOptions, tokenizer: Tokenizer, rng: random.Random
) -> Iterator[Sample]:
    folder = options.path.parent if options.path else Path()
    for name, _ in _lines(options, "audio"):
        if not (folder / name).is_file():
            raise ConfigError(f"{options.path} names {name}, and {folder / name} is no file.")
        yield Sample("", [], 0, audio=folder / name)


def _lines(options: DatasetOptions, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each line says under `key`, and the whole line."""
    for number, line in enumerate(_read(options.path).splitlines()[: options.num_prompts], 1):
        try:
            entry = json.loads(line)
            found = entry[key]
        except (ValueError, TypeError, KeyError):
            found = None
        if not isinstance(found, str):
            raise ConfigError(
                f'{options.path}, line {number}: it must be a JSON object with "{key}".'
            )
        yield found, entry


def _read_json(path: Path | None) -> object:
    try:
        return json.loads(_read(path))
    except ValueError:
        raise ConfigError(f"{path} is no JSON.") from None


def _read(path: Path | None) -> str:
    if path is None:
        raise ConfigError("This dataset is a file: give it with --dataset-path.")
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {path}: {error}.") from None


_Dataset = Callable[[DatasetOptions, Tokenizer, random.Random], Iterator[Sample]]
_DATASETS: dict[str, _Dataset] = {
    "random": _random,
    "prefix_repetition": _prefix_repetition,
    "sharegpt": _sharegpt,
    "burstgpt": _burstgpt,
    "custom": _custom,
    "multi_turn": _multi_turn,
    "random-rerank": _random_rerank,
    "custom_audio": _custom_audio,
}
