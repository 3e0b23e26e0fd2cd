"""The adapters that requests may name, in the place of the model: those of `--lora-modules`, and
what an operator loads and unloads while the server runs.

Each has an id that no other ever had, so what was computed with one of the same name is not found
again. Owns the names; files are the engine's to read.
"""

from asyncio import Lock
from collections.abc import Iterator, Sequence
from itertools import count
from weakref import WeakValueDictionary

from engine.adapters.request import LoRARequest
from engine.errors import ConfigError, NotFoundError, RequestError


class AdapterNames:
    """Raises ConfigError if one is called as the model is."""

    def __init__(self, given: Sequence[LoRARequest] = (), model_names: Sequence[str] = ()) -> None:
        self._model_names = model_names
        self._adapters = {lora.lora_name: lora for lora in given}
        self._ids = count(1 + max((lora.lora_int_id for lora in given), default=0))
        self._changing: WeakValueDictionary[str, Lock] = WeakValueDictionary()
        taken = next((name for name in model_names if name in self._adapters), None)
        if taken is not None:
            raise ConfigError(
                f"--lora-modules names an adapter {taken!r}, as the model is; use another name."
            )

    def __iter__(self) -> Iterator[str]:
        return iter(self._adapters)

    def __contains__(self, name: object) -> bool:
        return name in self._adapters

    def get(self, name: str | None) -> LoRARequest | None:
        """The adapter of this name."""
        return None if name is None else self._adapters.get(name)

    def wanted(self, model: str | None, lora_path: str | None) -> LoRARequest | None:
        """What a request means that names an adapter in either field, or in none.

        Raises:
            NotFoundError: there is none of that name.
            RequestError: the two fields name two.
        """
        by_model = self.get(model)
        if lora_path is None:
            return by_model
        found = self.get(lora_path)
        if found is None:
            raise NotFoundError(f"There is no adapter {lora_path[:100]!r} here.", "lora_path")
        if by_model is not None and by_model is not found:
            raise RequestError("model and lora_path name two adapters; send one.", "lora_path")
        return found

    def changing(self, name: str) -> Lock:
        """Held while what a name stands for changes: who asked first is done first."""
        return self._changing.setdefault(name, Lock())

    def made(self, name: str, path: str) -> LoRARequest:
        """An adapter that is not served yet; raises RequestError for an empty name or path."""
        return LoRARequest(name, next(self._ids), path)

    def serve(self, lora: LoRARequest) -> None:
        """From now on requests may name it; it takes the place of one of its name."""
        self._adapters[lora.lora_name] = lora

    def forget(self, name: str) -> bool:
        """Whether there was one of this name."""
        return self._adapters.pop(name, None) is not None
