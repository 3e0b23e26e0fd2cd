"""How each family that publishes files of tiktoken splits a text, and its special tokens.

    a file of tiktoken    tokens and ranks, nothing else
    code of the model     the rest, which is this table

Owns the table, with where each row is from, and which row a folder means.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from engine.tokenizers.gguf_words import GPT4O_WORDS, KIMI_WORDS, LLAMA3_WORDS, QWEN2_WORDS, Words

Names = dict[int, str]
"""Special tokens by id."""

_END = "<|endoftext|>"
_LLAMA3 = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>",
    "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
    *(f"<|reserved_special_token_{place}|>" for place in range(3, 248)),
)  # fmt: skip
_EXTRA = tuple(f"<|extra_{place}|>" for place in range(205))
_QWEN = (_END, "<|im_start|>", "<|im_end|>", *_EXTRA)
_HUNYUAN = (_END, "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>", *_EXTRA)
# of 100,256 and 199,998 ranks: 100257 and so on, 199999 and 200018
_CL100K = {1: _END, 2: "<|fim_prefix|>", 3: "<|fim_middle|>", 4: "<|fim_suffix|>"}
_LAST = {1: _END, 20: "<|endofprompt|>"}


def reserved(first: int, count: int) -> Names:
    """Ids that mean nothing yet."""
    return {one: f"<|reserved_token_{one}|>" for one in range(first, first + count)}


@dataclass(frozen=True)
class Family:
    """What the code of a model says of its file."""

    words: Words
    names: Callable[[int], Names] = lambda first: {}
    """From the first id that is no rank, where tokenizer_config.json names no tokens."""
    config: Mapping[str, object] = field(default_factory=dict)
    """What is so where tokenizer_config.json does not say it."""
    before: tuple[str, ...] = ()
    """Special tokens before a text, if not what "add_bos_token" says."""


FAMILIES: Mapping[str, Family] = {
    # tokenizer.py of llama-models; names as in the tokenizer.json of Llama 3.1 and later
    "llama3": Family(
        Words((LLAMA3_WORDS,), whole=True),
        lambda first: dict(enumerate(_LLAMA3, first)),
        {"bos_token": _LLAMA3[0], "eos_token": _LLAMA3[1], "add_bos_token": True},
    ),
    # tokenization_qwen.py of Qwen-7B
    "qwen": Family(
        Words((QWEN2_WORDS,), whole=True, composed=True),
        lambda first: dict(enumerate(_QWEN, first)),
        {"eos_token": _END},
    ),
    # tokenization_hy.py of Hunyuan-A13B-Instruct
    "hunyuan": Family(
        Words((QWEN2_WORDS,), whole=True, composed=True),
        lambda first: dict(enumerate(_HUNYUAN, first)),
        {"eos_token": "<|eos|>", "pad_token": "<|pad|>"},
    ),
    # tokenization_kimi.py of Kimi-K2-Instruct, tokenization_moonshot.py of Moonlight-16B-A3B
    "kimi": Family(Words((KIMI_WORDS,), whole=True), lambda first: reserved(first, 256)),
    # tokenization_chatglm.py of glm-4-9b-chat
    "glm4": Family(Words((LLAMA3_WORDS,), whole=True), before=("[gMASK]", "<sop>")),
    # openai_public.py of tiktoken
    "cl100k": Family(
        Words((LLAMA3_WORDS,), whole=True),
        lambda first: {first + place: name for place, name in (_CL100K | _LAST).items()},
        {"eos_token": _END},
    ),
    "o200k": Family(
        Words((GPT4O_WORDS,), whole=True),
        lambda first: {first + place: name for place, name in _LAST.items()},
        {"eos_token": _END},
    ),
}
_OF_CLASS = {
    "TikTokenTokenizer": "kimi", "QWenTokenizer": "qwen", "HYTokenizer": "hunyuan",
    "ChatGLM4Tokenizer": "glm4",
}  # fmt: skip
_OF_FILE = {
    "qwen.tiktoken": "qwen", "hy.tiktoken": "hunyuan", "cl100k_base.tiktoken": "cl100k",
    "o200k_base.tiktoken": "o200k",
}  # fmt: skip
_LLAMA3_RANKS = 128_000


def find_family(file: str, tokenizer_class: object, ranks: int) -> Family | None:
    """The family of a folder; None where it is not known.

    Args:
        file: name of the file.
        tokenizer_class: as tokenizer_config.json has it.
        ranks: how many the file has. Llama 3's own folders say nothing else of themselves.
    """
    name = _OF_CLASS.get(str(tokenizer_class)) or _OF_FILE.get(file)
    if name is None and file == "tokenizer.model" and ranks == _LLAMA3_RANKS:
        name = "llama3"
    return FAMILIES[name] if name else None
