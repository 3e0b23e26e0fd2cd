"""The command line's options: one type each, shared by the commands that have it.

Names, meanings and defaults are vLLM's wherever vLLM has the option; SGLang's names for them are in
`peer_options`. `None` leaves the choice to the engine.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
import typer

_UNITS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30,
}  # fmt: skip
_MODEL, _LIMITS, _SAMPLING = "Model", "Limits and memory", "Sampling"
_ANSWERS, _SERVER, _OPERATION = "Answers", "Server", "Operation"


def parse_count(text: str) -> int:
    """ "32768" -> 32768, "32k" -> 32000, "32K" -> 32768, "1.5G" -> 1610612736."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmgKMG]?)", str(text))
    if match is None:
        raise typer.BadParameter(
            f"{text!r} is no count; write 32768, 32k (thousands) or 32K (1024)."
        )
    number = float(match[1]) if "." in match[1] else int(match[1])
    return int(number * _UNITS[match[2]])


def parse_list(flag: str, text: str | None) -> list[str]:
    """'["a", "b"]' -> ["a", "b"]; raises BadParameter naming the flag."""
    try:
        return [] if text is None else msgspec.json.decode(text, type=list[str])
    except msgspec.DecodeError:
        raise typer.BadParameter(
            f'{flag} takes a JSON list of texts, such as ["a"], got {text!r}.'
        ) from None


def parse_hosts(text: str | None) -> list[str] | None:
    """As `parse_list`; None leaves it to the address."""
    return None if text is None else parse_list("--allowed-hosts", text)


def parse_length(text: str) -> int | Literal["auto"]:
    """A count, or "auto" (also -1): as long as the memory allows."""
    return "auto" if str(text) in ("auto", "-1") else parse_count(text)


def parse_object(flag: str, text: str | None) -> dict[str, object] | None:
    """'{"a": 1}' -> {"a": 1}; raises BadParameter naming the flag."""
    try:
        return None if text is None else msgspec.json.decode(text, type=dict[str, object])
    except msgspec.DecodeError:
        raise typer.BadParameter(f"{flag} takes a JSON object, got {text!r}.") from None


def parse_objects(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The objects of those of the options given whose values are JSON."""
    return {name: parse_object("--" + name.replace("_", "-"), given.get(name)) for name in names}


MODEL_HELP = "A local folder, a GGUF file, org/name on the Hugging Face hub, or 'demo'."
Model = Annotated[
    str,
    typer.Option("--model", help=MODEL_HELP, rich_help_panel=_MODEL),
]
NamedModel = Annotated[
    str | None,
    typer.Option("--model", help="The same as MODEL above.", rich_help_panel=_MODEL),
]
Revision = Annotated[
    str | None,
    typer.Option(help="On the hub: a branch, a tag or a commit.", rich_help_panel=_MODEL),
]
DownloadDir = Annotated[
    str | None,
    typer.Option(
        help="Where downloads go, if not to Hugging Face's cache.", rich_help_panel=_MODEL
    ),
]
Dtype = Annotated[
    str,
    typer.Option(help="auto, float32, bfloat16 or float16.", rich_help_panel=_MODEL),
]
LoadFormat = Annotated[
    str,
    typer.Option(
        help="auto (safetensors, .bin or GGUF) or dummy (random weights).", rich_help_panel=_MODEL
    ),
]
SaveFormat = Annotated[
    str,
    typer.Option(
        help="safetensors, or orbax, which other programs of JAX read and which starts slower."
    ),
]
Quantization = Annotated[
    str | None,
    typer.Option(
        help="int8, or on GPUs fp8: weights are quantised while they are read, tokens in each "
        "step. Checkpoints that are quantised need no flag.",
        rich_help_panel=_MODEL,
    ),
]
Runner = Annotated[
    str,
    typer.Option(
        help="auto (what the model is made for), generate (text), pooling (vectors).",
        rich_help_panel=_MODEL,
    ),
]
Convert = Annotated[
    str,
    typer.Option(
        help="auto, none, embed (vectors of any model), classify (its classifier).",
        rich_help_panel=_MODEL,
    ),
]
PoolerConfig = Annotated[
    str | None,
    typer.Option(
        help='How states become a vector, as JSON: {"pooling_type": "MEAN"} (or CLS, LAST; ALL '
        'and STEP for one a token or step), "use_activation": false, "step_tag_id", '
        '"returned_token_ids".',
        metavar="JSON",
        rich_help_panel=_MODEL,
    ),
]
HfOverrides = Annotated[
    str | None,
    typer.Option(
        help="Values that go before those of config.json, as JSON: "
        '{"architectures": ["LlamaForCausalLM"]}.',
        metavar="JSON",
        rich_help_panel=_MODEL,
    ),
]
Seed = Annotated[int, typer.Option(help="Where everything random begins.", rich_help_panel=_MODEL)]
MaxModelLen = Annotated[
    Any,
    typer.Option(
        parser=parse_length,
        metavar="TOKENS",
        help="Most tokens of a prompt and its answer, as 32768, 32k or 32K, or auto: what fits "
        "into memory; if not given, the model's own.",
        rich_help_panel=_LIMITS,
    ),
]
MaxNumSeqs = Annotated[
    int | None,
    typer.Option(
        help="Requests that run at a time, at most; if not given, 256, and 64 on CPUs.",
        rich_help_panel=_LIMITS,
    ),
]
MaxNumBatchedTokens = Annotated[
    int | None,
    typer.Option(
        parser=parse_count,
        metavar="TOKENS",
        help="Tokens in one step, at most; if not given, 8192, and 256 on CPUs (of vectors 16384 "
        "and 1024), or what more rows or a longer text take.",
        rich_help_panel=_LIMITS,
    ),
]
MaxNumQueuedReqs = Annotated[
    int | None,
    typer.Option(
        help="Waiting requests before new ones get a 503; those that run are not counted. If not "
        "given, any number waits.",
        rich_help_panel=_LIMITS,
    ),
]
MaxNumQueuedTokens = Annotated[
    int | None,
    typer.Option(
        parser=parse_count, metavar="TOKENS",
        help="Tokens of prompts that have not begun to answer, before new ones get a 503: how long "
        "a first token may take, times what is computed in a second.",
        rich_help_panel=_LIMITS,
    ),
]  # fmt: skip
MaxConcurrentRequestsPerKey = Annotated[
    int | None,
    typer.Option(
        help="Requests of one API key at a time before its next ones get a 429.",
        rich_help_panel=_LIMITS,
    ),
]
BlockSize = Annotated[
    int | None,
    typer.Option(
        help="Tokens in a page: 16, 32, 64 or 128; if not given, 64, and 16 on CPUs.",
        rich_help_panel=_LIMITS,
    ),
]
AttentionBackend = Annotated[
    str,
    typer.Option(
        help="auto (the device's own), mosaic (Hopper), triton (also Ampere, Ada), xla (slow).",
        rich_help_panel=_LIMITS,
    ),
]
GpuMemoryUtilization = Annotated[
    float, typer.Option(help="Share of the device memory to use.", rich_help_panel=_LIMITS)
]
KvCacheMemoryBytes = Annotated[
    int | None,
    typer.Option(
        parser=parse_count, metavar="BYTES", help="Cache size in bytes, instead of a share.",
        rich_help_panel=_LIMITS,
    ),
]  # fmt: skip
NumGpuBlocksOverride = Annotated[
    int | None,
    typer.Option(help="Cache size in pages, instead of a share.", rich_help_panel=_LIMITS),
]
KvOffloadingSize = Annotated[
    float | None,
    typer.Option(
        metavar="GIB", help="Host memory for cached pages that the device has no room for.",
        rich_help_panel=_LIMITS,
    ),
]  # fmt: skip
TensorParallelSize = Annotated[
    int,
    typer.Option(
        "--tensor-parallel-size", "-tp", help="Devices to spread the model over.",
        rich_help_panel=_LIMITS,
    ),
]  # fmt: skip
KvCacheDtype = Annotated[
    str,
    typer.Option(
        help="auto (what the model computes in), bfloat16, or fp8 and int8_per_token_head: twice "
        "the tokens and more.",
        rich_help_panel=_LIMITS,
    ),
]
EnablePrefixCaching = Annotated[
    bool,
    typer.Option(
        "--enable-prefix-caching/--no-enable-prefix-caching",
        help="Compute the beginning of a prompt only once, however many prompts have it.",
        rich_help_panel=_LIMITS,
    ),
]
LogitsProcessors = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CLASS",
        help="A class of yours that changes logits, as module:Class, or the name of an entry "
        "point; repeatable.",
        rich_help_panel=_SAMPLING,
    ),
]
CompilationCacheDir = Annotated[
    str | None,
    typer.Option(
        help="Where compiled programs are kept, if not in ~/.cache/ingot/xla.",
        rich_help_panel=_LIMITS,
    ),
]
CompilationCacheSize = Annotated[
    float,
    typer.Option(
        help="GiB kept there; a start deletes what is beyond, least recently used first.",
        rich_help_panel=_LIMITS,
    ),
]

Host = Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_SERVER)]
Port = Annotated[
    int, typer.Option(help="Port to listen on; 0 picks a free one.", rich_help_panel=_SERVER)
]
Uds = Annotated[
    str | None,
    typer.Option(help="Path of a Unix socket, instead of a port.", rich_help_panel=_SERVER),
]
SslCertfile = Annotated[
    str | None, typer.Option(help="Certificate, for HTTPS.", rich_help_panel=_SERVER)
]
SslKeyfile = Annotated[
    str | None, typer.Option(help="The certificate's key.", rich_help_panel=_SERVER)
]
AllowedHosts = Annotated[
    str | None,
    typer.Option(
        help='Names by which the server may be called, as JSON: ["a.org", "*.a.org"] or ["*"]. '
        "Without it any, or this machine's own if only this machine can connect.",
        metavar="LIST",
        rich_help_panel=_SERVER,
    ),
]
AllowedOrigins = Annotated[
    str | None,
    typer.Option(
        help='Web pages that may call the server, as JSON: ["https://a.org"] or ["*"].',
        metavar="LIST",
        rich_help_panel=_SERVER,
    ),
]
EnableLogRequests = Annotated[
    bool,
    typer.Option(
        "--enable-log-requests/--no-enable-log-requests",
        help="One line a request on stderr, without its text.",
        rich_help_panel=_OPERATION,
    ),
]
EnablePerRequestMetrics = Annotated[
    bool,
    typer.Option(
        "--enable-per-request-metrics/--no-enable-per-request-metrics",
        help="Responses with one answer say how long it took.",
        rich_help_panel=_OPERATION,
    ),
]
LogLevel = Annotated[
    str,
    typer.Option(help="critical, error, warning, info or debug.", rich_help_panel=_OPERATION),
]
LogFormat = Annotated[str, typer.Option(help="text or json.", rich_help_panel=_OPERATION)]
OtlpTracesEndpoint = Annotated[
    str | None,
    typer.Option(
        help="Collector of OpenTelemetry's traces, as http://localhost:4318/v1/traces; needs the "
        "extra otel.",
        metavar="URL",
        rich_help_panel=_OPERATION,
    ),
]
ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        envvar="INGOT_API_KEY", show_envvar=True, metavar="KEY", rich_help_panel=_SERVER,
        help="Key that clients must send, or sha256: and its digest; repeatable.",
    ),
]  # fmt: skip
AdminApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="INGOT_ADMIN_API_KEY", show_envvar=True, metavar="KEY", rich_help_panel=_SERVER,
        help="Key of the admin page; without it any API key opens it.",
    ),
]  # fmt: skip
IsolatePrefixCache = Annotated[
    bool,
    typer.Option(
        "--isolate-prefix-cache/--no-isolate-prefix-cache",
        help="Whether each API key has a prefix cache of its own.", rich_help_panel=_SERVER,
    ),
]  # fmt: skip
ServedModelName = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Name in the API; repeatable.", rich_help_panel=_ANSWERS),
]
ChatTemplate = Annotated[
    str | None,
    typer.Option(help="A Jinja file, or the template itself.", rich_help_panel=_ANSWERS),
]
TrustRequestChatTemplate = Annotated[
    bool,
    typer.Option(
        "--trust-request-chat-template/--no-trust-request-chat-template",
        help="Let requests bring their own chat template.",
        rich_help_panel=_ANSWERS,
    ),
]
ToolCallParser = Annotated[
    str,
    typer.Option(
        help="How the model writes calls of tools: auto (its chat template shows it), none, or a "
        "name as vLLM's.",
        rich_help_panel=_ANSWERS,
    ),
]
ReasoningParser = Annotated[
    str,
    typer.Option(
        help="How the model writes its reasoning: auto, none, or a name as vLLM's.",
        rich_help_panel=_ANSWERS,
    ),
]
EnableAutoToolChoice = Annotated[
    bool,
    typer.Option(
        "--enable-auto-tool-choice/--no-enable-auto-tool-choice",
        help="Let the model choose whether it calls tools.",
        rich_help_panel=_ANSWERS,
    ),
]
StreamInterval = Annotated[
    int,
    typer.Option(
        help="Tokens in a chunk of a stream, at least; the first and the last go at once.",
        rich_help_panel=_SERVER,
    ),
]
GenerationConfig = Annotated[
    str,
    typer.Option(
        help="Sampling defaults: auto (the model's) or vllm (none).", rich_help_panel=_SAMPLING
    ),
]
MaxBodyBytes = Annotated[
    int,
    typer.Option(
        parser=parse_count, metavar="BYTES", help="Largest request.", rich_help_panel=_SERVER
    ),
]
MaxAudioClipFilesizeMb = Annotated[
    int, typer.Option(help="Largest file to transcribe, in MiB.", rich_help_panel=_SERVER)
]
ShutdownTimeout = Annotated[
    float,
    typer.Option(help="Seconds that running requests get to finish.", rich_help_panel=_OPERATION),
]
UvicornLogLevel = Annotated[
    str,
    typer.Option(help="critical, error, warning, info, debug, trace.", rich_help_panel=_OPERATION),
]
