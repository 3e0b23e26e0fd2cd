"""The command line: its flags, and one sentence for whatever is wrong."""

import json
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from engine.config import EngineConfig
from engine.watermarking.config import WatermarkConfig
from serve import cli
from serve.commands import batch, run
from serve.commands.repeated import repeated
from serve.fallback.apis import FallbackApi
from serve.settings import ServerSettings, StructuredOutputsConfig


def ingot(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of the command."""
    monkeypatch.setattr(sys, "argv", ["ingot", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return int(exit.value.code or 0)


def test_what_is_wrong_at_the_start_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    model_folder: Path,
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, sentence in (
            ([str(tmp_path / "nowhere")], "There is no folder"),
            ([str(tmp_path)], "config.json"),
            ([str(model_folder), "--port", port], "already in use; --port 0 picks"),
            (
                [str(model_folder), "--port", "0", "--host", "999.1.1.1"],
                "Cannot listen on 999.1.1.1",
            ),
            ([str(model_folder), "--block-size", "17"], "--block-size must be one of"),
            ([str(model_folder), "--dtype", "int3"], "--dtype must be one of auto, float32"),
            (
                [str(model_folder), "--uvicorn-log-level", "loud"],
                "--uvicorn-log-level must be one of",
            ),
            ([str(model_folder), "--chat-template", "no.jinja"], "Cannot read the chat template"),
            ([str(model_folder), "--api-key", " "], "--api-key must not be empty"),
        ):
            assert ingot(monkeypatch, "serve", *arguments) == 2
            error = capfd.readouterr().err
            assert sentence in error and error.startswith("error: ") and error.count("\n") == 1


def test_every_flag_reaches_its_setting(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(run, "run_server", lambda *settings: seen.extend(settings) or 0)
    flags = (
        "--dtype float32 --load-format dummy --seed 3 --max-model-len 4k --max-num-seqs 9 "
        "--max-num-batched-tokens 2K --max-num-queued-reqs 5 --max-num-queued-tokens 6k "
        "--block-size 32 "
        "--attention-backend xla --kv-cache-dtype fp8 --quantization int8 "
        '--hf-overrides {"head_dim":8} '
        "--gpu-memory-utilization 0.5 --kv-cache-memory-bytes 1.5G --num-gpu-blocks-override 77 "
        "-tp 2 --scheduling-policy priority --no-enable-prefix-caching "
        "--no-async-scheduling --num-scheduler-steps 8 --compilation-cache-dir /c "
        "--compilation-cache-size 0.5 "
        "--host ::1 --port 9 "
        "--api-key a --api-key b --served-model-name x --chat-template t --generation-config vllm "
        "--max-body-bytes 2M --shutdown-timeout 4 --uvicorn-log-level info --stream-interval 4 "
        "--trust-request-chat-template --no-isolate-prefix-cache "
        "--kv-cache-metrics --kv-cache-metrics-sample 0.5 "
        "--watchdog-timeout 9 --try-timeout 8 --fallback-url http://a/v1 "
        '--fallback-url {"url":"http://b","model":"m"}'
    )
    assert ingot(monkeypatch, "serve", "folder", *flags.split()) == 0
    assert seen == [
        EngineConfig(
            model="folder", dtype="float32", load_format="dummy", seed=3, max_model_len=4000,
            max_num_seqs=9, max_num_batched_tokens=2048, block_size=32, attention_backend="xla",
            kv_cache_dtype="fp8", quantization="int8", hf_overrides={"head_dim": 8},
            gpu_memory_utilization=0.5, kv_cache_memory_bytes=3 * 2**29,
            num_gpu_blocks_override=77, tensor_parallel_size=2, scheduling_policy="priority",
            enable_prefix_caching=False, async_scheduling=False, num_scheduler_steps=8,
            compilation_cache_dir="/c", compilation_cache_size=0.5, kv_cache_metrics=True,
            kv_cache_metrics_sample=0.5,
        ),
        ServerSettings(
            host="::1", port=9, api_keys=("a", "b"), served_model_names=("x",), chat_template="t",
            generation_config="vllm", max_num_queued_reqs=5,
            max_num_queued_tokens=6000, max_body_bytes=2 * 2**20,
            shutdown_timeout=4.0, stream_interval=4, trust_request_chat_template=True,
            uvicorn_log_level="info", watchdog_timeout=9.0, try_timeout=8.0,
            isolate_prefix_cache=False,
            fallbacks=(
                FallbackApi(url="http://a/v1"), FallbackApi(url="http://b", model="m"),
            ),
        ),
    ]  # fmt: skip


def test_help_shows_every_name_whole_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    commands: Any = typer.main.get_command(cli.app)
    bench = commands.commands.pop("bench").commands
    found = [([name], each) for name, each in commands.commands.items()]
    for words, command in [*found, *((["bench", name], each) for name, each in bench.items())]:
        assert ingot(monkeypatch, *words, "--help") == 0
        text = capfd.readouterr().out
        assert max(map(len, text.splitlines())) <= 80, words
        names = {
            one for each in command.params for one in each.opts if one[0] == "-" and not each.hidden
        }
        assert names <= set(re.findall(r"[\w-]+", text)), words
        assert not {*"…\u2011\u00a0"} & set(text)
        assert "{" not in text.splitlines()[0]
    assert ingot(monkeypatch, "serve", "--help") == 0
    text = capfd.readouterr().out
    assert "[default: off]" in text and "[default: on]" in text
    assert ingot(monkeypatch, "--help") == ingot(monkeypatch, "--version") == 0
    assert re.search(r"--version .*\n.*--help .*\ningot \S+$", capfd.readouterr().out.strip())
    assert text.index("Model:") < text.index("Server:") < text.index("Operation:")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings that `ingot serve` came to."""
    found: list[Any] = []
    monkeypatch.setattr(run, "run_server", lambda *settings: found.extend(settings) or 0)
    return found


def test_sglangs_names_and_underscores_stand_for_the_same_options(
    monkeypatch: pytest.MonkeyPatch, seen: list[Any]
) -> None:
    flags = (
        "--model-path folder --context-length 4096 --max-running-requests 9 --page-size 32 "
        "--chunked-prefill-size 2048 --tp 2 --schedule-policy lpm --disable-radix-cache "
        "--disable-overlap-schedule --random-seed 3 --max-queued-requests 5 --tokenizer-path t "
        "--log-level-http info --num-continuous-decode-steps 4 --served_model_name x"
    )
    assert ingot(monkeypatch, "serve", *flags.split()) == 0
    assert seen == [
        EngineConfig(
            model="folder", max_model_len=4096, max_num_seqs=9, block_size=32,
            max_num_batched_tokens=2048, tensor_parallel_size=2, scheduling_policy="lpm",
            enable_prefix_caching=False, async_scheduling=False, seed=3, tokenizer="t",
            num_scheduler_steps=4,
        ),
        ServerSettings(
            max_num_queued_reqs=5, uvicorn_log_level="info", served_model_names=("x",)
        ),
    ]  # fmt: skip


def test_settings_of_answers_reach_servers_and_batches(
    monkeypatch: pytest.MonkeyPatch, seen: list[Any]
) -> None:
    monkeypatch.setattr(batch, "run_batch_file", lambda *given: seen.extend(given[:2]) or (1, 0))
    text = (
        "--model folder --response-role model --max-logprobs 5 --tool-call-parser hermes "
        "--chat-template-content-format openai --gpu-memory-utilization 0.5 "
        '--default-chat-template-kwargs {"enable_thinking":false} '
        '--override-generation-config {"temperature":0.5,"max_new_tokens":7} '
        '--structured-outputs-config {"disable_any_whitespace":true,"reasoning_parser":"qwen3"}'
    )
    flags = text.split()
    assert ingot(monkeypatch, "serve", *flags) == 0
    assert ingot(monkeypatch, "run-batch", "-i", "in", "-o", "out", *flags) == 0
    config = EngineConfig(model="folder", gpu_memory_utilization=0.5)
    settings = ServerSettings(
        response_role="model", max_logprobs=5, tool_call_parser="hermes",
        chat_template_content_format="openai", default_chat_template_kwargs={"enable_thinking": 0},
        override_generation_config={"temperature": 0.5, "max_new_tokens": 7},
        structured_outputs_config=StructuredOutputsConfig(
            disable_any_whitespace=True, reasoning_parser="qwen3"
        ),
    )  # fmt: skip
    assert seen == [config, settings] * 2 and settings.parser_of_reasoning == "qwen3"


def test_what_is_so_anyway_is_taken_and_its_contrary_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, seen: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    flags = (
        "--enable-chunked-prefill --disable-log-stats --enable-metrics --enable-cache-report "
        "--enable-prompt-tokens-details --enable-server-load-tracking --disable-log-requests "
        "--disable-uvicorn-access-log --logprobs-mode raw_logprobs --grammar-backend llguidance "
        "--prefix-caching-hash-algo sha256 -pp 1 --dp-size 1 --api-server-count 1"
    )
    assert ingot(monkeypatch, "serve", *flags.split()) == 0
    assert seen == [EngineConfig(), ServerSettings()]
    for given, sentence in (
        (["--no-enable-chunked-prefill"], "--no-enable-chunked-prefill cannot be had"),
        (["--trust-remote-code"], "no code of a model's repository is ever run"),
        (["--mem-fraction-static", "0.8"], "--gpu-memory-utilization is a share"),
        (["--logprobs-mode", "processed_logits"], "raw_logprobs, processed_logprobs"),
        (["-dp", "2"], "`ingot router` before them"),
        (["--enforce-eager"], "--enforce-eager is not taken"),
        (["a", "--model", "b"], "name two models"),
        (["--override-generation-config", '{"top_n": 1}'], "has no 'top_n'; it takes temperature"),
        (["--override-generation-config", '{"temperature": -1}'], "config: temperature must be"),
        (["--structured-outputs-config", '{"backend": "outlines"}'], "backend"),
        (["--max-logprobs", "21"], "--max-logprobs must be from 0 to 20"),
        (["--root-path", "/a/../b"], "--root-path is a path such as"),
        (["--fallback-url", "nowhere"], "no URL"),
        (["--kv-cache-metrics-sample", "0"], "--kv-cache-metrics-sample must be above 0"),
        (["--watchdog-timeout", "0"], "--watchdog-timeout must be more than 0"),
    ):
        assert ingot(monkeypatch, "serve", *given) == 2
        assert sentence in " ".join(capfd.readouterr().err.split()), given
    assert len(seen) == 2


def test_defaults_are_the_settings_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(run, "run_server", lambda *settings: seen.extend(settings) or 0)
    monkeypatch.setenv("INGOT_API_KEY", "from-env")
    assert ingot(monkeypatch, "serve") == 0
    assert seen == [EngineConfig(), ServerSettings(api_keys=("from-env",))]


def test_a_watermarks_key_need_not_be_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(run, "run_server", lambda *settings: seen.extend(settings) or 0)
    monkeypatch.setenv("INGOT_WATERMARK_CONFIG", '{"key": 18446744073709551615}')
    assert ingot(monkeypatch, "serve") == 0
    assert seen[0].watermark_config == WatermarkConfig(key=2**64 - 1)


def test_a_wrong_number_is_explained(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ingot(monkeypatch, "serve", "--max-model-len", "many") == 2
    assert "32K" in capfd.readouterr().err


def test_the_environment_is_shown_for_people_and_programs(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ingot(monkeypatch, "env", "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["packages"]["jax"] and facts["system"]["python"]
    assert facts["devices"]["0"].startswith("cpu")
    monkeypatch.setenv("XLA_FLAGS", "--xla_[bold]")
    assert ingot(monkeypatch, "env") == 0
    shown = capfd.readouterr().out
    assert "--xla_[bold]" in shown and "jaxlib" in shown


@pytest.mark.parametrize(
    ("text", "length"), [("auto", "auto"), ("-1", "auto"), ("32k", 32_000), ("1.5K", 1536)]
)
def test_the_context_may_be_what_fits_and_pages_go_to_the_host(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path, text: str, length: int | str
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(run, "run_server", lambda *settings: seen.extend(settings) or 0)
    flags = ("--max-model-len", text, "--kv-offloading-size", "1.5")
    assert ingot(monkeypatch, "serve", str(model_folder), *flags) == 0
    assert (seen[0].max_model_len, seen[0].kv_offloading_size) == (length, 1.5)


def test_a_model_is_converted(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert ingot(monkeypatch, "convert", "demo", str(tmp_path / "made")) == 0
    assert f"written: {tmp_path / 'made'}" in capfd.readouterr().out.replace("\n", "")
    assert {"ingot.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "made").iterdir()}
    assert ingot(monkeypatch, "convert", "demo", str(tmp_path / "made")) == 2
    assert "is not empty" in capfd.readouterr().err
    other = ("convert", "demo", str(tmp_path / "other"), "--save-format", "zarr")
    assert ingot(monkeypatch, *other) == 2
    assert "use safetensors or orbax" in capfd.readouterr().err


@pytest.mark.parametrize(("typed", "meant"), [
    ("model --tag a b --one c d", "model --tag a --tag b --one c d"),
    ("--tag a model", "--tag a model"), ("model --tag=a b", "model --tag=a --tag b"),
    ("model --tag a --tag b c -x", "model --tag a --tag b --tag c -x"), ("", ""),
])  # fmt: skip
def test_an_option_may_have_several_values(typed: str, meant: str) -> None:
    assert repeated(typed.split(), {"--tag"}, 1) == meant.split()
