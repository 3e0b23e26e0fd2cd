"""How texts are split into words by the names that GGUF files have for it."""

import pytest
from tokenizers import Tokenizer, decoders, models

from engine.tokenizers.gguf_words import WORDS, split_words


def words(name: str, text: str) -> list[str]:
    backend = Tokenizer(models.BPE())
    split_words(backend, WORDS[name])
    pieces = backend.pre_tokenizer.pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in pieces]


# worked out by hand from each model's pattern
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gpt-2", "don't 1234  x", "don|'t| 1234| | x"),
        ("llama-bpe", "don't 1234  x", "don|'t| |123|4| | x"),
        ("dbrx", "DON'T 1234", "DON|'T| |123|4"),
        ("qwen2", "don't 12", "don|'t| |1|2"),
        ("smollm", "don't 1234 x", "don|'t| |1|2|3|4| x"),
        ("gpt-4o", "don't HelloWorld 1234 a/\n", "don't| Hello|World| |123|4| a|/\n"),
        ("tekken", "don't HelloWorld 12 a/\n", "don|'t| Hello|World| |1|2| a|/\n"),
        ("tekken", "iPhoneXS", "i|Phone|XS"),
        ("deepseek-v3", "x12345東京です.foo, bar", "x|123|45|東京です|.foo|,| bar"),
        ("deepseek-v3", "don't\n\n", "don|'t|\n\n"),
        ("qwen35", "nai\u0308ve 12", "nai\u0308ve| |1|2"),
        ("exaone-moe", "one two, 12", "one two|,| |1|2"),
        ("kimi-k2", "abc東京 HelloWorld 1234", "abc|東京| Hello|World| |123|4"),
        ("afmoe", "12345东京abc.foo, 1234567", "12|345|东京|abc|.foo|,| |1|234|567"),
        ("bailingmoe2", "don't 12\n\n x", "don|'t| |1|2|\n\n| x"),
        ("cohere2moe", "HelloWorld 12345 x1234", "Hello|World| |12|345| x|1|234"),
        ("youtu", "안녕abc，。東京 12", "안녕|abc|，。|東京| |1|2"),
        ("solar-open", "don't 12", "don|'t| |1|2"),
        ("mellum2", "don't 12 x", "don|'t| |1|2| x"),
        ("hy_v4", "x12345東京です.foo", "x|123|45|東京です|.foo"),
        ("deepseek-llm", "don't 12, 東京です\nx ", "don|'|t| |1|2|,| |東京です|\n|x| "),
        ("falcon", "don't, +12345 x", "don|'|t|,| |+|123|45| x"),
        ("bloom", "a  [x], don't (12)", "a| | [x]|,| don't| (|12|)"),
        ("jais-2", "don't       x 1234", "don|'t|    |  | x| |123|4"),
        ("deepseek-coder", "def f(x1):\n東京", "def| f|(|x|1|):|\n|東京"),
    ],
)
def test_words_are_those_of_the_model(name: str, text: str, expected: str) -> None:
    assert words(name, text) == expected.split("|")


@pytest.mark.parametrize("name", WORDS)
def test_no_letter_is_lost(name: str) -> None:
    text = "Größe, 東京 привет\r\n\t naïve\u0301 👩‍🚀 x²+3.14e-3 ﷺ  "
    backend = Tokenizer(models.BPE())
    split_words(backend, WORDS[name])
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
    assert decoders.ByteLevel().decode(pieces) == text


def test_falcons_numbers_are_of_the_letters_that_stand_for_bytes() -> None:
    """ "м" is two bytes, of which the second is written as "¼"."""
    backend = Tokenizer(models.BPE())
    split_words(backend, WORDS["falcon"])
    pieces = [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str("м x²")]
    assert pieces == ["Ð", "¼", "Ġx", "Â", "²"]


@pytest.mark.parametrize("name", ["mpt", "olmo", "command-r", "qwen2"])
def test_letters_and_their_accents_are_one_character_first(name: str) -> None:
    backend = Tokenizer(models.BPE())
    split_words(backend, WORDS[name])
    assert backend.normalizer.normalize_str("nai\u0308ve") == "naïve"
