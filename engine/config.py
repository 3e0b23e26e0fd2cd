"""Every setting of the engine, validated once and then frozen; names and defaults are vLLM's.

`None` means "chosen from the model and the machine"; `engine.memory` resolves those.
"""

from typing import Any, Literal

import msgspec

from engine.errors import ConfigError
from engine.settings import convert_settings, flag

PAGE_SIZES = (16, 32, 64, 128)
# Names as in vLLM, and what then lies in pages; None is what the model computes in
CACHE_DTYPES = {
    "auto": None,
    "fp8": "float8_e4m3fn",
    "fp8_e4m3": "float8_e4m3fn",
    "int8_per_token_head": "int8",
}
_POSITIVE = (
    "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes",
    "num_gpu_blocks_override", "tensor_parallel_size",
)  # fmt: skip


class EngineConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of one engine; raises `ConfigError` naming the setting that is wrong."""

    model: str = "demo"  # a local folder, or "demo" for the bundled model
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    load_format: Literal["auto", "dummy"] = "auto"
    quantization: str | None = None  # int8, fp8: while it is read; None: as the checkpoint is
    seed: int = 0
    max_model_len: int | None = None  # tokens; None is the model's own context
    max_num_seqs: int | None = None  # rows in a step
    max_num_batched_tokens: int | None = None  # tokens in a step
    block_size: int | None = None  # slots in a page
    attention_backend: Literal["auto", "mosaic", "triton", "xla"] = "auto"  # auto: the device's own
    kv_cache_dtype: Literal["auto", "fp8", "fp8_e4m3", "int8_per_token_head"] = "auto"
    gpu_memory_utilization: float = 0.92  # share of the free device memory to use
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None  # pages, instead of a share of the memory
    tensor_parallel_size: int = 1
    scheduling_policy: Literal["fcfs", "priority", "lpm"] = "fcfs"
    enable_prefix_caching: bool = True
    compilation_cache_dir: str | None = None  # None is the user's cache folder

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{flag(name)} must be at least 1, got {value}.")
        if self.max_model_len == 1:
            raise ConfigError("--max-model-len must be at least 2: a prompt, and a token after it.")
        if self.block_size is not None and self.block_size not in PAGE_SIZES:
            sizes = ", ".join(map(str, PAGE_SIZES))
            raise ConfigError(f"--block-size must be one of {sizes}, got {self.block_size}.")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(
                "--gpu-memory-utilization must be above 0 and at most 1, "
                f"got {self.gpu_memory_utilization}."
            )


def make_config(**settings: Any) -> EngineConfig:
    """The config of untyped settings; an unknown name or a wrong value is a `ConfigError`."""
    return convert_settings(settings, EngineConfig)
