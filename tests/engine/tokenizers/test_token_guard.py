"""What texts of a conversation spell is text, whatever the tokenizer and the template are."""

import json
import re
from copy import copy
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from engine.errors import RequestError
from engine.templates.chat_template import ChatTemplate
from engine.tokenizers.detokenizer import byte_letters
from engine.tokenizers.token_guard import TokenGuard, without_marks
from engine.tokenizers.tokenizer import Tokenizer
from engine.tokenizers.tokenizer_files import TokenizerFiles
from models.checkpoints.checkpoint import find_folder
from tests.engine.templates.test_chat_template import BROKEN, CALL, CALLED, NEED_TOOLS, TALK, TOOLS
from tests.engine.tokenizers_small import REAL, SMALL, load, load_real

TURNS = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}\n{{ m.content | trim }}{{ eos_token }}\n"
    "{% endfor %}"
)
NAMES = re.compile(r"<[|｜][^<>'\"|｜]+[|｜]>|\[/?[A-Z_]+\]|</?s>|<[a-z]+_of_[a-z]+>|<eos>|<bos>")
ODD = ("<s>", "</s>", "<s", "s>", "<", "|", ">", "@~", "@~0", "@~1", "1", " ", "\n", "é", "▁")


def made(backend: Backend, **special: str) -> Tokenizer:
    return Tokenizer(TokenizerFiles(backend, special, {"default": TURNS}))


def small(name: str) -> Tokenizer:
    return made(SMALL[name](), bos_token="<s>", eos_token="</s>")


def byte_level(*special: str, words: tuple[str, ...] = ()) -> Tokenizer:
    letters = {letter: place for place, letter in enumerate(byte_letters().values())}
    backend = Backend(models.BPE(vocab=letters, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in special])
    backend.add_tokens([AddedToken(name, normalized=False) for name in words])
    return made(backend, bos_token=special[0], eos_token=special[-1])


@cache
def deaf(tokenizer: Tokenizer) -> Backend:
    """As `tokenizers` has it: no special token is looked for."""
    backend = Backend.from_str(tokenizer.to_json())
    backend.encode_special_tokens = True
    return backend


def literal(tokenizer: Tokenizer, text: str) -> list[int]:
    return deaf(tokenizer).encode(text, add_special_tokens=False).ids


def marked_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(tokenizer.guard.marked(text), False, marked=True)


@cache
def real(shared_data: Path, name: str) -> Tokenizer:
    return load_real(shared_data, name)


def chat_ids(tokenizer: Tokenizer, content: str, role: str = "user") -> tuple[str, list[int]]:
    template = ChatTemplate(
        tokenizer.chat_templates, tokenizer.special_tokens, guard=tokenizer.guard
    )
    prompt = template.write([{"role": role, "content": content}])
    if prompt.marked is None:
        return prompt.text, tokenizer.encode(prompt.text, False)
    return prompt.text, tokenizer.encode(prompt.marked, False, marked=True)


def steering(tokenizer: Tokenizer, ids: list[int]) -> list[int]:
    return [each for each in ids if tokenizer.token_text(each) in tokenizer.guard.tokens]


TOKENIZERS = {name: small(name) for name in SMALL} | {"demo": load(find_folder("demo"))}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40)
@given(st.lists(st.sampled_from((*ODD, "<|im_end|>", "<|im_", "start|>", "Once")), max_size=12))
def test_no_text_becomes_a_special_token(name: str, pieces: list[str]) -> None:
    tokenizer, text = TOKENIZERS[name], "".join(pieces)
    unknown = tokenizer.token_id("</s>") if name in ("metaspace", "bare") else None
    ids = marked_ids(tokenizer, text)
    assert ids == literal(tokenizer, text)
    assert not tokenizer.special_ids & ({*ids} - {unknown})  # their unknown token is </s>
    shown, prompt = chat_ids(tokenizer, text)
    assert text.strip() in shown
    if name in ("byte_level", "demo"):
        assert tokenizer.decode(ids, False) == text
        assert tokenizer.decode(prompt, False) == shown
        assert steering(tokenizer, prompt) == steering(tokenizer, chat_ids(tokenizer, "a")[1])


def test_without_such_a_text_nothing_is_marked_and_a_twin_reads_the_same(shared_data) -> None:
    texts = sorted((shared_data / "tokenizers/vectors").glob("*.inp"))
    for name in REAL:
        tokenizer = real(shared_data, name)
        for path in texts:
            text = path.read_text(encoding="utf-8")
            assert tokenizer.encode(text, marked=True) == tokenizer.encode(text)
    template = ChatTemplate({"default": TURNS}, {}, guard=tokenizer.guard)
    assert template.write(TALK, variables={}).marked is None


@pytest.mark.parametrize("name", REAL)
def test_real_tokenizers_read_their_special_tokens_as_text(shared_data, name: str) -> None:
    tokenizer = real(shared_data, name)
    text = "a" + " b".join(set(tokenizer.special_token_ids) & {*tokenizer.guard.tokens}) + "c"
    ids = marked_ids(tokenizer, text)
    assert ids == literal(tokenizer, text) and not tokenizer.special_ids & {*ids}
    assert tokenizer.decode(ids, False) == text


def told(word: str) -> list[dict[str, str]]:
    """A conversation in which `word` stands in what users say."""
    return [t | {"content": f"{t['content']} {word}."} if t["role"] == "user" else t for t in TALK]


def called(word: str) -> list[dict]:
    """In what a tool was asked, and answered."""
    user, call, result = CALLED
    function = {"name": "get_weather", "arguments": json.dumps({"city": word}, ensure_ascii=False)}
    asked = call | {"tool_calls": [CALL | {"function": function}]}
    return [user, asked, result | {"content": f"22 {word}"}]


def offered(word: str) -> list[dict]:
    [tool] = TOOLS
    return [tool | {"function": tool["function"] | {"description": f"Of {word}."}}]


def test_the_mark_survives_every_template(shared_data) -> None:
    """In texts, results and schemas: the names of all the tokens that the template writes."""
    counts = [0, 0]
    for path in sorted((shared_data / "templates").glob("*.jinja")):
        if path.name in BROKEN:
            continue
        source = path.read_text(encoding="utf-8")
        names = sorted({*NAMES.findall(source)})
        tokenizer = byte_level("<bos>", *names, "<eos>")
        template = ChatTemplate(
            {"default": source}, tokenizer.special_tokens, guard=tokenizer.guard
        )
        bare = copy(template)
        bare._guard = TokenGuard(())
        spelled = " ".join([*names, "<bos><eos>"])
        for kind, chat in enumerate((told, called)):
            tools = offered if kind or path.name.endswith(NEED_TOOLS) else lambda word: None
            try:
                plain = template.write(chat("PLACE"), tools=tools("PLACE"))
            except RequestError:  # takes no tools
                continue
            full = template.write(chat(spelled), tools=tools(spelled))
            assert full.text == bare.render(chat(spelled), tools=tools(spelled)), path.name
            ids = tokenizer.encode(full.marked or "", False, marked=True)
            expected = tokenizer.encode(plain.text, False)
            assert steering(tokenizer, ids) == steering(tokenizer, expected), path.name
            assert tokenizer.decode(ids, False) == full.text
            counts[kind] += 1
    assert counts[0] > 50 and counts[1] > 40


def test_an_assistants_turn_is_taken_apart_as_ever() -> None:
    """By what the template looks for; other names are text there as well."""
    tokenizer = byte_level("<s>", "<|end|>", "<|think|>", "</s>")
    source = "{% for m in messages %}<s>{{ m.content.split('<|think|>')[-1] }}{% endfor %}"
    template = ChatTemplate({"default": source}, {}, guard=tokenizer.guard)
    for role, shown in (("assistant", "so<|end|>"), ("user", "hm<|think|>so<|end|>")):
        prompt = template.write([{"role": role, "content": "hm<|think|>so<|end|>"}])
        ids = tokenizer.encode(prompt.marked or "", False, marked=True)
        assert prompt.text == f"<s>{shown}" == tokenizer.decode(ids, False)
        assert steering(tokenizer, ids) == [tokenizer.token_id("<s>")]


def test_names_that_json_hides_are_found_and_errors_show_no_marks() -> None:
    tokenizer = byte_level("<s>", "</s>")
    source = (
        "{% for m in messages %}{{ raise_exception(m.content) if m.content else '' }}"
        "{% for c in m.tool_calls %}<s>{{ c.function.arguments | tojson }}{% endfor %}{% endfor %}"
    )
    template = ChatTemplate({"default": source}, {}, guard=tokenizer.guard)
    call = {"function": {"name": "f", "arguments": '{"\\u003cs>": "\\u003cs>@~"}'}}
    prompt = template.write([{"role": "assistant", "content": None, "tool_calls": [call]}])
    assert prompt.text == '<s>{"<s>": "<s>@~"}'
    ids = tokenizer.encode(prompt.marked or "", False, marked=True)
    assert steering(tokenizer, ids) == [tokenizer.token_id("<s>")]
    with pytest.raises(RequestError, match=r"^a@~<s>$"):
        template.write([{"role": "user", "content": "a@~<s>"}])


def test_which_tokens_no_text_may_spell() -> None:
    added = [
        AddedToken("<s>", special=True), AddedToken("\n\n", special=True), AddedToken("<｜User｜>"),
        AddedToken("x", special=True), AddedToken("<think>"), AddedToken("  "),
    ]  # fmt: skip
    assert set(TokenGuard(added).tokens) == {"<s>", "<｜User｜>"}


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("<<a>>", "<a>"), "<<a>><<a>"),
        (("aba",), "ababababa"),
        (("||", "|||"), "|||||||"),
        (("[x]", "[x][x]"), "[x][x][x]"),
    ],
)
def test_names_within_and_over_each_other(names: tuple[str, ...], text: str) -> None:
    guard = TokenGuard([AddedToken(name, special=True) for name in names])
    marked = guard.marked(text)
    assert guard.finds(text) and not guard.finds(marked) and without_marks(marked) == text


def test_a_token_that_is_looked_for_in_normalized_text() -> None:
    backend = byte_level("<s>", "</s>")._backend
    other = Backend(backend.model)
    other.normalizer = normalizers.NFC()
    other.pre_tokenizer, other.decoder = backend.pre_tokenizer, backend.decoder
    other.add_special_tokens([AddedToken("<s>", normalized=True), AddedToken("</s>")])
    tokenizer = made(other, bos_token="<s>", eos_token="</s>")
    text, ids = chat_ids(tokenizer, "a<s>b")
    assert len(steering(tokenizer, ids)) == 2 and tokenizer.decode(ids, False) == text


@pytest.mark.parametrize("letters", ["</s>", "/s"])
def test_a_name_that_is_a_word_of_the_vocabulary(letters: str) -> None:
    """Also where some of its letters are unknown, as "<" is to T5."""
    words = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("a", -3.0), ("▁a", -2.5)]
    words += [(letter, -12.0) for letter in letters]
    backend = Backend(models.Unigram(words, 0, False))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    backend.add_special_tokens([AddedToken(name, special=True) for name in ("<s>", "</s>")])
    tokenizer = made(backend, bos_token="<s>", eos_token="</s>")
    text, ids = chat_ids(tokenizer, "a</s> <s>a")
    assert len(steering(tokenizer, ids)) == 2 and tokenizer.special_ids & {*ids} == {1, 2}
    shown = "a</s> <s>a" if "<" in letters else "a<unk>/s<unk> <unk>s<unk>a"
    assert "a</s> <s>a" in text and shown in tokenizer.decode(ids, False)
    assert tokenizer.encode("a<s> aé", marked=True) == tokenizer.encode("a<s> aé")


@pytest.mark.parametrize("cut", range(1, len("<|im_end|>")))
def test_a_name_in_two_parts_of_a_message_is_text(cut: int) -> None:
    tokenizer = byte_level("<|im_start|>", "<|im_end|>")
    name = "<|im_end|>"
    parts = [{"type": "text", "text": "Hi" + name[:cut]}, {"type": "text", "text": name[cut:]}]
    joined = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"
    template = ChatTemplate({"default": joined}, tokenizer.special_tokens, guard=tokenizer.guard)
    written = template.write([{"role": "user", "content": parts}])
    assert written.marked is not None
    ids = tokenizer.encode(written.marked, False, marked=True)
    assert ids == literal(tokenizer, "Hi" + name)
