"""Options of adapters, named as vLLM's."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

_PANEL = "Adapters"

EnableLora = Annotated[
    bool,
    typer.Option(
        "--enable-lora/--no-enable-lora",
        help="Make room for LoRA adapters, which requests name as their model.",
        rich_help_panel=_PANEL,
    ),
]
LoraModules = Annotated[
    list[str] | None,
    typer.Option(
        help='An adapter in PEFT\'s layout, as NAME=PATH or JSON: {"name": "a", "path": "b"}; '
        "repeatable.",
        metavar="NAME=PATH",
        rich_help_panel=_PANEL,
    ),
]
MaxLoras = Annotated[
    int,
    typer.Option(help="Adapters in one step; others wait for their turn.", rich_help_panel=_PANEL),
]
MaxLoraRank = Annotated[int, typer.Option(help="The largest of any.", rich_help_panel=_PANEL)]
MaxCpuLoras = Annotated[
    int | None,
    typer.Option(
        help="Adapters kept in the host's memory, if not --max-loras; others are read again.",
        rich_help_panel=_PANEL,
    ),
]


class LoraModule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's form of an adapter in JSON."""

    name: str
    path: str
    base_model_name: str | None = None


def parse_lora_modules(given: Sequence[str] | None) -> list[dict[str, Any]]:
    """["a=b", '{"name": "c", "path": "d"}', "[...]"] as `LoRARequest`s, with ids from 1 on; raises
    BadParameter naming the flag."""
    modules = [module for text in given or () for module in _modules(text)]
    return [
        {
            "lora_name": module.name, "lora_int_id": number, "lora_path": module.path,
            "base_model_name": module.base_model_name,
        }
        for number, module in enumerate(modules, 1)
    ]  # fmt: skip


def _modules(text: str) -> list[LoraModule]:
    if not text.lstrip().startswith(("{", "[")):
        name, equals, path = text.partition("=")
        if not (name.strip() and equals and path.strip()):
            raise typer.BadParameter(f"--lora-modules takes NAME=PATH or JSON, got {text!r}.")
        return [LoraModule(name, path)]
    try:
        found = msgspec.json.decode(text, type=LoraModule | list[LoraModule])
    except msgspec.DecodeError as error:
        raise typer.BadParameter(
            f'--lora-modules takes NAME=PATH, or JSON such as {{"name": "a", "path": "b"}}: '
            f"{error}."
        ) from None
    return found if isinstance(found, list) else [found]
