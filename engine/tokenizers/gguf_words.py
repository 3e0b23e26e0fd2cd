r"""How byte-level vocabularies of GGUF files split a text into words, by `tokenizer.ggml.pre`.

    llama-bpe   "don't 1234"   don | 't | ·| 123 | 4
    qwen2       "don't 1234"   don | 't | · | 1 | 2 | 3 | 4
    gpt-4o      "don't 1234"   don't | · | 123 | 4

Owns the table. A name that is not in it is refused: another split would give other tokens.
Source: the tokenizer.json of the models that each is named after; llama.cpp's `llama-vocab.cpp`
says which names mean the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SEED_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_FIRST, _REST = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE, _SHORT = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_AFTER = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O_WORDS = (
    rf"{_BEFORE}{_FIRST}*{_REST}+{_SHORT}|{_BEFORE}{_FIRST}+{_REST}*{_SHORT}|\p{{N}}{{1,3}}{_AFTER}"
)
TEKKEN_WORDS = rf"{_BEFORE}{_FIRST}*{_REST}+|{_BEFORE}{_FIRST}+{_REST}*|\p{{N}}{_AFTER}"
DEEPSEEK3_WORDS = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
QWEN35_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
EXAONE_MOE_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
_HAN = r"&&[^\p{Han}]]"
KIMI_WORDS = (
    rf"[\p{{Han}}]+|{_BEFORE}{_FIRST[:-1]}{_HAN}*{_REST[:-1]}{_HAN}+{_SHORT}"
    rf"|{_BEFORE}{_FIRST[:-1]}{_HAN}+{_REST[:-1]}{_HAN}*{_SHORT}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# letters with two cases, but for small ones of Armenian, Georgian, Coptic and newer blocks
_CASED = (
    r"[[\p{Lu}\p{Ll}\p{Lt}]&&[^\x{560}-\x{588}\x{10C7}-\x{10FF}\x{1C80}-\x{1C8F}\x{2D00}-\x{2D2D}"
    r"\x{A790}-\x{A7FA}\x{AB30}-\x{AB68}\x{10570}-\x{105BC}\x{10D50}-\x{10D8F}\x{16E40}-\x{16E7F}"
    r"\x{1D400}-\x{1DFFF}]]"
)
_THOUSANDS = r"\d{1,3}(?=(?:\d{3})*\b)"  # three digits from the last on
DEEPSEEK_LLM_WORDS = (
    r"[\r\n]",
    rf"\s?{_CASED}+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-퟿]+",
    r"\p{N}",
)
BLOOM_WORDS = r" ?[^\s(|).,!?…。，、।۔،]+"
_JAIS_SPACES = "".join(rf"\s{{{size}}}(?!\S)|" for size in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
JAIS_2_WORDS = LLAMA3_WORDS.replace(r"\s+(?!\S)|\s+", rf"{_JAIS_SPACES}\s")
_PUNCTUATED = DEEPSEEK3_WORDS[2]
AFMOE_WORDS = (
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",
    r"[一-鿿㐀-䶿豈-\x{FAFF}぀-ゟ゠-ヿ･-ﾟ⼀-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}ក-\x{17FF}"
    r"က-႟ꩠ-ꩿꧠ-\x{A9FF}가-\x{D7AF}ᄀ-ᇿ]+",
    _PUNCTUATED,
)
BAILING_WORDS = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
    r"|\s+(?!\S)|\s+"
)
YOUTU_WORDS = (
    r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+",
    GPT4O_WORDS.replace(r"\p{N}{1,3}", r"\p{N}"),
)
DEEPSEEK_CODER_WORDS = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")


@dataclass(frozen=True)
class Words:
    """Patterns, each of which splits what those before it have left."""

    patterns: tuple[str, ...] = ()
    gpt2: bool = False  # then as GPT-2 does
    whole: bool = False  # a word that is a token is that token, whatever the merges say
    composed: bool = False  # letters and their accents are one character first (NFC)
    bos: bool = False  # before a text, where no key says it
    between: int = 0  # encoders': EOS between two texts, and one behind them
    falcon: bool = False  # signs before all else, and digits by three among the letters of bytes


_LLAMA3 = Words((LLAMA3_WORDS,), whole=True, bos=True)
_DIGITS = Words((r"\p{N}",), gpt2=True)
_GPT4O = Words((GPT4O_WORDS,))
_GPT2 = Words(gpt2=True)
_CL100K = Words((LLAMA3_WORDS,))
_DEEPSEEK3 = Words(DEEPSEEK3_WORDS)
_QWEN2 = Words((QWEN2_WORDS,), composed=True)
WORDS: Mapping[str, Words] = {
    **dict.fromkeys(
        (
            "gpt-2",
            "gpt2",
            "default",
            "phi-2",
            "gigachat",
            "exaone4",
            "mellum",
            "granite-docling",
        ),
        _GPT2,
    ),
    **dict.fromkeys(("mpt", "olmo"), Words(gpt2=True, composed=True)),  # GPT-NeoX's
    "command-r": Words((r"\p{N}",), gpt2=True, composed=True),
    "falcon": Words(gpt2=True, falcon=True),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), Words((BLOOM_WORDS,))),
    "jais-2": Words((JAIS_2_WORDS,)),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "lfm2"), _LLAMA3
    ),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "megrez"), _QWEN2),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), _CL100K),  # Phi-4, Smaug, GLM-4 of 2024
    **dict.fromkeys(("smollm", "starcoder", "refact", "exaone", "mellum2"), _DIGITS),
    **dict.fromkeys(("gpt-4o", "llama4", "minimax-m2"), _GPT4O),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "hy_v4"), _DEEPSEEK3),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), Words((BAILING_WORDS,))),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), Words((_THOUSANDS, GPT4O_WORDS))),
    "roberta-bpe": Words(gpt2=True, bos=True, between=2),
    "modern-bert": Words(gpt2=True, composed=True, bos=True, between=1),
    **dict.fromkeys(("glm4", "glm5"), Words((LLAMA3_WORDS,), whole=True)),
    "hunyuan": Words((QWEN2_WORDS,), whole=True),
    "kimi-k2": Words((KIMI_WORDS,), whole=True),
    "qwen35": Words((QWEN35_WORDS,), composed=True),
    "exaone-moe": Words((EXAONE_MOE_WORDS,)),
    "deepseek-llm": Words(DEEPSEEK_LLM_WORDS),
    "seed-coder": Words((SEED_WORDS,)),
    **dict.fromkeys(("stablelm2", "solar-open"), Words((QWEN2_WORDS,))),
    "afmoe": Words(AFMOE_WORDS),
    "youtu": Words(YOUTU_WORDS),
    "deepseek-coder": Words(DEEPSEEK_CODER_WORDS),
    "tekken": Words((TEKKEN_WORDS,), whole=True, bos=True),
}

FIRST: Mapping[str, str] = {  # the architectures of files without the name, made before May 2024
    "falcon": "falcon", "gptneox": "mpt", "bloom": "bloom", "mpt": "mpt", "starcoder": "starcoder",
}  # fmt: skip


def split_words(backend: Backend, words: Words) -> None:
    """Let `backend` split texts so, and then into the letters that stand for bytes."""
    steps: list[pre_tokenizers.PreTokenizer] = [
        pre_tokenizers.Split(Regex(one), behavior="isolated") for one in words.patterns
    ]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words.gpt2)
    steps.append(letters)
    if words.falcon:
        signs, numbers = pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits()
        thousands = pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), behavior="isolated")
        steps = [signs, letters, numbers, thousands]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else letters
    if words.composed:
        backend.normalizer = normalizers.NFC()
