"""An adapter as requests name it; the fields and their order are those of vLLM's `LoRARequest`."""

import json

import msgspec

from engine.errors import RequestError

_MARK = "adapter "


class LoRARequest(msgspec.Struct, frozen=True):
    """A folder in PEFT's layout under a name; each adapter has an id of its own.

    Two are the same adapter if all fields are equal: files that have changed since they were read
    need another id.

    Raises:
        RequestError: the name or the path is empty, or the id is below 1.
    """

    lora_name: str
    lora_int_id: int
    lora_path: str
    base_model_name: str | None = None  # what the server shows as its parent, if not the model

    def __post_init__(self) -> None:
        for field in ("lora_name", "lora_path"):
            if not getattr(self, field).strip():
                raise RequestError(f"{field} must not be empty.", field)
        if self.lora_int_id < 1:
            raise RequestError(
                f"lora_int_id must be at least 1, got {self.lora_int_id}.", "lora_int_id"
            )


def namespace(salt: str, lora: LoRARequest | None) -> str:
    """Where the prefix cache looks: no salt and adapter look where another pair of them does."""
    if lora is None:
        return f"{_MARK}{salt}" if salt.startswith(_MARK) else salt
    return _MARK + json.dumps([lora.lora_int_id, lora.lora_name, lora.lora_path, salt])
