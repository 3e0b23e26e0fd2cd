"""What `ingot serve` and `ingot bench` print shows brackets as they are."""

import io

from rich.console import Console

from engine.messages import ModelInfo
from serve.bench.load import Load
from serve.bench.requests import Outcome
from serve.bench.results import summarise
from serve.bench.serving import ServeRun, show
from serve.commands.summary import print_summary
from serve.model import ServedModel
from serve.settings import ServerSettings


def test_names_and_labels_are_no_markup():
    info = ModelInfo(
        architecture="Bert", vocab_size=9, max_model_len=8, num_parameters=5, eos_token_ids=[],
        max_num_seqs=2, num_pages=0, page_size=1, load_seconds=0.0, compile_seconds=0.0,
        task="classify", labels=["[neg]", "[/pos]"], embedding_size=2,
    )  # fmt: skip
    model = ServedModel(
        names=("a[/b]",), root="r", tokenizer=None, template=None, templates=None, tools=None,
        thinking=None, sampling_defaults={}, default_max_tokens=None,
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=100)
    print_summary(console, info, model, ServerSettings(), "http://x")
    shown = console.file.getvalue()
    assert shown.count("a[/b]") == 2 and "classes: [neg], [/pos]" in shown


def test_what_a_server_says_is_no_markup():
    outcome = Outcome(1, error="HttpError: status 404: there is no [/v1/x]")
    load = Load([outcome], 1.0, None)
    console = Console(file=io.StringIO(), width=100)
    show(ServeRun(summarise(load), load), (), console)
    assert "no [/v1/x]" in console.file.getvalue()
