"""Models of other packages: modules that say what a file in `architectures/` says.

    [project.entry-points."ingot.models"]        # "ingot.encoders" for one with ENCODERS
    OwnForCausalLM = "own_package.own_model"     # the architecture in config.json, and the module

Owns finding them, loading one when it is asked for, and the errors of those that are broken.
Nothing is imported before: what is installed and not used costs nothing and breaks nothing.
"""

from collections.abc import Collection
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from models.errors import ModelError, headline

MODELS, ENCODERS = "ingot.models", "ingot.encoders"


class PluginError(ModelError):
    """A package offers a model that cannot be loaded, or that is there already."""


def names(group: str) -> frozenset[str]:
    """The architectures that installed packages offer."""
    return frozenset(_entries(group))


def load_plugin(group: str, name: str, listed: str, built_in: Collection[str]) -> ModuleType | None:
    """The module that offers the architecture `name`; None if there is none.

    Args:
        listed: what the module must have besides `config` and `weights`, "ARCHITECTURES".
        built_in: the architectures that need no plug-in.

    Raises:
        PluginError: it is broken, or there are two of that name.
    """
    found = _entries(group).get(name, ())
    if not found:
        return None
    owners = [_described(entry) for entry in found]
    if name in built_in:
        owners.insert(0, "Ingot itself")
    if len(owners) > 1:
        raise PluginError(
            f"{' and '.join(owners)} both offer the architecture {name}; uninstall the package, "
            f"or let it use another name."
        )
    return _loaded(found[0], listed)


@cache
def _entries(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for entry in entry_points(group=group):
        found[entry.name] = (*found.get(entry.name, ()), entry)
    return found


def _loaded(entry: EntryPoint, listed: str) -> ModuleType:
    try:
        module = entry.load()
    except Exception as error:  # whatever somebody else's code raises
        raise _broken(entry, headline(error)) from error
    missing = [name for name in ("config", "weights") if not callable(getattr(module, name, None))]
    if missing:
        raise _broken(entry, f"it has no function {missing[0]}")
    if entry.name not in getattr(module, listed, ()):
        raise _broken(entry, f"its {listed} does not list {entry.name}")
    return module  # type: ignore[no-any-return]


def _broken(entry: EntryPoint, what: str) -> PluginError:
    return PluginError(
        f"{_described(entry)}, which offers the architecture {entry.name}, cannot be used "
        f"({what}); repair or uninstall it."
    )


def _described(entry: EntryPoint) -> str:
    """ "own-models 0.1 (own_package.own_model)"."""
    package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "A package"
    return f"{package} ({entry.value})"
