"""`suffix`: prompts of gaps, as each family of models was trained to see them."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer

from serve.settings import ServerSettings
from tests.serve.served import Serve

pytestmark = pytest.mark.anyio
ENDS = ["<|endoftext|>", "▁<EOT>"]
FAMILIES = {
    "qwen": (["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"], "P ab S cd M", [ENDS[0]]),
    "starcoder": (["<fim_prefix>", "<fim_suffix>", "<fim_middle>"], "P ab S cd M", [ENDS[0]]),
    "deepseek": (["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"], "P ab S cd M", [ENDS[0]]),
    "llama": (["▁<PRE>", "▁<SUF>", "▁<MID>"], "P ab S cd M", [ENDS[1]]),
    "codestral": (["[PREFIX]", "[SUFFIX]"], "S cd P ab", [ENDS[0]]),
}


def folder_of(marks: list[str], model_folder: Path, target: Path) -> tuple[Path, Tokenizer]:
    """The tests' model, whose tokenizer has these special tokens too."""
    target.mkdir()
    for path in model_folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tokenizer = Tokenizer.from_file(str(target / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken(name) for name in [*marks, *ENDS]])
    tokenizer.save(str(target / "tokenizer.json"))
    return target, tokenizer


@pytest.mark.parametrize("family", FAMILIES)
async def test_parts_are_put_in_their_order(
    serve: Serve, model_folder: Path, tmp_path: Path, family: str
) -> None:
    marks, order, ends = FAMILIES[family]
    folder, tokenizer = folder_of(marks, model_folder, tmp_path / family)
    async with serve(folder=folder) as served:
        for prompt in ("ab", tokenizer.encode("ab").ids):
            answer = await served.complete(prompt=prompt, suffix="cd", max_tokens=1)
            assert answer.is_success, answer.text
        assert (await served.complete(prompt="", suffix="cd", max_tokens=1)).is_success
        plain = await served.complete(prompt="ab", suffix="", max_tokens=1)
    named = dict(zip("PSM", marks, strict=False))
    wanted = []
    for part in order.split():
        wanted += [tokenizer.token_to_id(named[part])] if part in named else (
            tokenizer.encode(part).ids
        )  # fmt: skip
    first, second, empty, last = served.core.added
    assert first.prompt_token_ids == second.prompt_token_ids == wanted
    assert empty.prompt_token_ids == [i for i in wanted if i not in tokenizer.encode("ab").ids]
    assert first.params.stop_token_ids == [tokenizer.token_to_id(end) for end in ends]
    assert plain.is_success and last.params.stop_token_ids is None


async def test_a_text_begins_as_the_model_expects(
    serve: Serve, model_folder: Path, tmp_path: Path
) -> None:
    from tokenizers.processors import TemplateProcessing

    folder, tokenizer = folder_of(FAMILIES["qwen"][0], model_folder, tmp_path / "bos")
    begin = tokenizer.token_to_id("<|im_start|>")
    tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", begin)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["bos_token"] = "<|im_start|>"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    async with serve(folder=folder) as served:
        await served.complete(prompt="ab", suffix="cd", max_tokens=1, ignore_eos=True)
        await served.complete(prompt="ab", suffix="cd", max_tokens=1, add_special_tokens=False)
        request, bare = served.core.added
    assert begin not in bare.prompt_token_ids
    assert request.prompt_token_ids.count(begin) == 1 and request.prompt_token_ids[0] == begin
    assert request.params.stop_token_ids is None


async def test_what_cannot_be_filled(serve: Serve, model_folder: Path, tmp_path: Path) -> None:
    async with serve() as served:
        unable = await served.complete(prompt="a", suffix="b")
    folder, _ = folder_of(FAMILIES["qwen"][0], model_folder, tmp_path / "m")
    async with serve(folder=folder) as served:
        echo = await served.complete(prompt="a", suffix="b", echo=True)
        cut = await served.complete(prompt="a", suffix="b", truncate_prompt_tokens=1)
        beams = await served.complete(prompt="a", suffix="b", use_beam_search=True, n=2)
        long = await served.complete(prompt="a", suffix="b" * 200)
        vast = await served.complete(prompt="a", suffix="b" * 100_000)
    params = [each.json()["error"]["param"] for each in (unable, echo, cut, beams, long, vast)]
    wrong = ["echo", "truncate_prompt_tokens", "use_beam_search"]
    assert params == ["suffix", *wrong, "prompt", "suffix"]
    assert "no tokens" in unable.json()["error"]["message"]


async def test_which_end_of_a_prompt_is_cut(serve: Serve) -> None:
    async with serve() as served:
        for side in ("left", "right", None):
            options = {"truncate_prompt_tokens": 2, "truncation_side": side, "max_tokens": 1}
            assert (await served.complete(prompt=[1, 2, 3], **options)).is_success
        wrong = await served.complete(
            prompt=[1], truncation_side="middle", truncate_prompt_tokens=1
        )
        assert [each.prompt_token_ids for each in served.core.added] == [[2, 3], [1, 2], [2, 3]]
    assert wrong.json()["error"]["param"] == "truncation_side"


async def test_documents_go_to_templates_that_show_them(serve: Serve) -> None:
    template = "{% for d in documents %}{{ d.title }};{% endfor %}{{ messages[-1].content }}"
    papers = [{"title": "A", "text": "x"}, {"title": "B", "text": "y"}]
    async with serve(ServerSettings(chat_template=template)) as served:
        told = await served.chat("Hi", documents=papers, max_tokens=6)
    async with serve() as served:
        untold = await served.chat("Hi", documents=papers)
        none = await served.chat("Hi", documents=[], max_tokens=1)
    assert told.json()["choices"][0]["message"]["content"] == "A;B;Hi"
    assert untold.json()["error"]["param"] == "documents" and none.is_success


async def test_stop_strings_stay_by_sglangs_name(serve: Serve) -> None:
    async with serve() as served:
        answer = await served.complete(prompt="abc", stop="c", no_stop_trim=True, max_tokens=9)
    assert answer.json()["choices"][0]["text"] == "abc"
