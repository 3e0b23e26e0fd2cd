"""What `ingot serve` prints when it is ready."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.messages import ModelInfo
from serve.model import ServedModel
from serve.settings import ServerSettings

_SIZES = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))


def print_summary(
    console: Console, info: ModelInfo, model: ServedModel, settings: ServerSettings, url: str
) -> None:
    """The model, its limits, how long the start took, where it is served, and a first request."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    table.add_row("model", f"[bold]{escape(model.names[0])}[/]  {info.architecture}")
    kept_as = info.quantization or info.dtype
    table.add_row("parameters", f"{short(info.num_parameters)}, {kept_as}")
    table.add_row("context", f"{info.max_model_len:,} tokens, {info.max_num_seqs} at a time")
    if info.task == "generate":
        pages = f"{info.num_pages:,} pages of {info.page_size} tokens"
        table.add_row("cache", f"{pages}: {concurrency(info)}")
    else:
        table.add_row("gives", escape(_gives(info)))
    if info.num_host_pages:
        table.add_row("host", f"{info.num_host_pages:,} pages more")
    table.add_row(
        "memory",
        f"weights {gib(info.parameter_bytes)}, pages {gib(info.kv_cache_bytes)}, "
        f"steps {gib(info.temporary_bytes)} on each device",
    )
    table.add_row(
        "device", f"{info.num_devices} x {info.device}, attention by {info.attention_backend}"
    )
    if model.tokenizer is None:
        table.add_row("tokenizer", "none: requests must send token ids")
    table.add_row("start", f"load {info.load_seconds:.1f} s, compile {info.compile_seconds:.1f} s")
    table.add_row("URL", f"[bold]{url}/v1[/]")
    if settings.uds is None:
        table.add_row("playground", url)
        table.add_row("admin", f"{url}/admin")
    console.print(table)
    console.print()
    console.print(
        example(url, model, bool(settings.api_keys), "pool" if info.per_token else info.task),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if settings.host not in ("127.0.0.1", "::1", "localhost") and not settings.api_keys:
        console.print(
            f"[yellow]Everybody who can reach {settings.host} can use this server; "
            "--api-key asks for a key.[/]"
        )


def concurrency(info: ModelInfo) -> str:
    """How many requests of the longest context the cache holds."""
    each = -(-info.max_model_len // info.page_size)
    return f"{info.num_pages / each:.1f} requests of {info.max_model_len:,} tokens"


def gib(count: int) -> str:
    """1610612736 -> "1.50 GiB"."""
    return f"{count / 2**30:.2f} GiB"


def _gives(info: ModelInfo) -> str:
    """What a model that writes no text is for."""
    each = ", each token or step its own" if info.per_token else ""
    if info.task == "embed":
        return f"embeddings of {info.embedding_size} numbers{each}"
    return f"classes: {', '.join(info.labels[:5])}{' ...' if len(info.labels) > 5 else ''}{each}"


def example(url: str, model: ServedModel, needs_key: bool, task: str = "generate") -> str:
    """A request to copy."""
    key = " -H 'Authorization: Bearer KEY'" if needs_key else ""
    if task != "generate":
        path = {"embed": "embeddings", "classify": "classify"}.get(task, "pooling")
        field = '"input": "Once upon a time"' if model.tokenizer else '"input": [1, 2, 3]'
    elif model.template is not None:
        path, field = "chat/completions", '"messages": [{"role": "user", "content": "Hello!"}]'
    elif model.tokenizer is not None:
        path, field = "completions", '"prompt": "Once upon a time"'
    else:
        path, field = "completions", '"prompt": [1, 2, 3]'
    body = f'{{"model": "{model.names[0]}", {field}}}'
    where = f"{url}/pooling" if path == "pooling" else f"{url}/v1/{path}"
    return f"curl {where}{key} -H 'Content-Type: application/json' -d '{body}'"


def short(count: int) -> str:
    """1235814400 -> "1.24B"."""
    for size, letter in _SIZES:
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return str(count)
