"""What users ask of a whole model, as `ingot bench` asks: Llama 3.1 8B's shape, dummy weights.

long answers       1,000 tokens in, 1,000 out, 256 at a time
served             over HTTP, 1,024 in, 128 out, all at once
known beginning    the first token after 16,384 that are in the cache
predicted answer   of 256 tokens, of which all, most or none were known before
start              until the first token, with the compile cache empty and full
"""

import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from engine import LLM, SamplingParams
from serve.bench.arrivals import Arrivals
from serve.bench.compare.checkpoint import save_tokenizer
from serve.bench.compare.peers import HttpPeer, Setting
from serve.bench.offline import measure_throughput
from serve.bench.predicted import Load, measure_predicted
from serve.bench.results import METRICS
from serve.bench.samples import DatasetOptions, Sample
from serve.bench.serving import ServeOptions, run
from serve.bench.startup import measure_startup
from tests.gpu.records import Log
from tests.gpu.whole_engine import model_folder, shape_of

ROWS = 256
_PERCENTILES = (50, 90, 99)


def long_answers(log: Log, folder: Path, quick: bool) -> None:
    """Output tokens a second of a full house, prompts and all."""
    rows, tokens = (4, 16) if quick else (ROWS, 1000)
    samples = [Sample("", _ids(row, tokens), tokens) for row in range(rows)]
    with LLM(**_settings(quick, max_model_len=2 * tokens + 1, max_num_seqs=rows)) as llm:
        if not quick:
            llm.core.wait_for_programs()
        measure_throughput(llm, [Sample("", _ids(-1, tokens), 8)])
        log.add("long answers", rows=rows, **measure_throughput(llm, samples))


def served(log: Log, folder: Path, quick: bool) -> None:
    """Every field of `ingot bench serve`."""
    rows, tokens_in, tokens_out = (2, 16, 4) if quick else (ROWS, 1024, 128)
    settings = _settings(quick, max_model_len=tokens_in + tokens_out + 1, max_num_seqs=rows)
    model = Path(settings["model"])
    flags = [word for name, value in settings.items() if name != "model"
             for word in (f"--{name.replace('_', '-')}", str(value))]  # fmt: skip
    command = [sys.executable, "-m", "serve", "serve", str(model), *flags]
    server = HttpPeer("ingot", command, Setting(model, None, 0, rows, model))
    dataset = DatasetOptions(
        num_prompts=2 * rows, random_input_len=tokens_in, random_output_len=tokens_out
    )
    options = ServeOptions(
        dataset, Arrivals(), base_url=server.url, tokenizer=str(model), ignore_eos=True,
        extra_body={"temperature": 0.0}, num_warmups=2, metrics=tuple(METRICS),
        percentiles=_PERCENTILES, goodput=("ttft:5000", "tpot:50"),
    )  # fmt: skip
    try:
        server.wait()
        server.wait_until_quiet()
        found = run(options).result
    finally:
        server.close()
    found["failed_requests"] = found.pop("failed")  # a record's `failed` says why a part did
    log.add("served", rows=rows, **found)


def known_beginning(log: Log, folder: Path, quick: bool) -> None:
    """Milliseconds from the request to its first token, once its beginning is in the cache."""
    tokens, times = (64, 2) if quick else (16384, 8)
    beginning, one = _ids(0, tokens), SamplingParams(max_tokens=1, ignore_eos=True)
    with LLM(**_settings(quick, max_model_len=tokens + 64, max_num_seqs=1)) as llm:
        if not quick:
            llm.core.wait_for_programs()

        def ask(number: int) -> tuple[float, int]:
            start = perf_counter()
            output = llm.generate([beginning + _ids(number, 32)], one, use_tqdm=False)[0]
            return 1e3 * (perf_counter() - start), output.num_cached_tokens

        cold, _ = ask(1)
        asked = [ask(2 + number) for number in range(times)]
    log.add(
        "known beginning",
        tokens=tokens,
        cached=min(cached for _, cached in asked),
        unknown_ms=cold,
        first_token_ms=statistics.median(ms for ms, _ in asked),
    )


def predicted_answer(log: Log, folder: Path, quick: bool) -> None:
    """Time and steps over those without a prediction, by the share of it that is right."""
    load = Load(tokens=12, rounds=1) if quick else Load(tokens=256, rounds=5)
    found = measure_predicted(_settings(quick, max_model_len=512), load)
    for what in ("ratios", "steps"):
        for share, values in found[what].items():
            found[f"{what}_{share:.0%}"] = statistics.median(values)
        del found[what]
    log.add("predicted answer", **found)


def start(log: Log, folder: Path, quick: bool) -> None:
    """Seconds of each part of a start until it can serve; dozens of programs follow, for minutes
    where nothing is cached."""
    rows = 4 if quick else ROWS
    settings = _settings(quick, max_model_len=1024, max_num_seqs=rows)
    found = measure_startup(settings, background=False)
    log.add("start", rows=rows, **found)


def _settings(quick: bool, **settings: Any) -> dict[str, Any]:
    """Of an engine for a folder made for it, which holds no weights."""
    shape = shape_of(quick)
    folder = model_folder(shape)
    save_tokenizer(folder, shape["vocab_size"])
    kind = {"max_num_batched_tokens": 64} if quick else {"dtype": "bfloat16"}
    return {"model": str(folder), "load_format": "dummy", **kind, **settings}


def _ids(seed: int, count: int) -> list[int]:
    """Tokens that no other seed begins with."""
    return [3 + (seed * 131 + place * 7 + place // 50) % 500 for place in range(count)]
