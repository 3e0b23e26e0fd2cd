"""Every setting of the engine, validated once and then frozen; names and defaults are vLLM's.

`None` means "chosen from the model and the machine"; `engine.compiling.memory` resolves those.
"""

from typing import Any, Literal

import msgspec

from engine.adapters.request import LoRARequest
from engine.errors import ConfigError
from engine.settings import convert_settings, flag
from engine.speculation.config import SpeculativeConfig
from engine.watermarking.config import WatermarkConfig

SCHEDULER_STEPS = (1, 2, 4, 8, 16)  # at most the smallest page: a row begins one page
PAGE_SIZES = (16, 32, 64, 128)
# Names as in vLLM, and what then lies in pages; None is what the model computes in
CACHE_DTYPES = {
    "auto": None,
    "bfloat16": "bfloat16",
    "fp8": "float8_e4m3fn",
    "fp8_e4m3": "float8_e4m3fn",
    "int8_per_token_head": "int8",
}
_MOST_GIB = 2**20  # more than a machine has
_POSITIVE = (
    "max_model_len", "max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes",
    "num_gpu_blocks_override", "tensor_parallel_size", "max_loras", "max_lora_rank",
)  # fmt: skip


class PoolerConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How a model's hidden states become a vector, instead of what its folder says.

    pooling_type: ALL gives a vector a token, STEP one for each of the tokens that end a step.
    use_activation: vectors get length 1, scores become probabilities.
    step_tag_id: that token, for STEP; without one it gives what ALL does.
    returned_token_ids: the classes that are given: of a classifier's, or tokens of a vocabulary.
    """

    pooling_type: Literal["CLS", "LAST", "MEAN", "ALL", "STEP"] | None = None
    use_activation: bool | None = None
    step_tag_id: int | None = None
    returned_token_ids: list[int] | None = None


class ProfilerConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Where traces of steps go and what they hold, under vLLM's names; JAX's profiler makes them.

    torch_profiler_with_stack: Python's functions are in it, which makes it large.
    delay_iterations, max_iterations: steps that a trace leaves out at its beginning, and that it
        holds at most; 0 is no limit. A request may say otherwise.
    """

    profiler: Literal["torch"] = "torch"  # vLLM's word for a trace of host and devices
    torch_profiler_dir: str
    torch_profiler_with_stack: bool = True
    delay_iterations: int = 0
    max_iterations: int = 0

    def __post_init__(self) -> None:
        if not self.torch_profiler_dir.strip() or "\0" in self.torch_profiler_dir:
            raise ConfigError("--profiler-config: torch_profiler_dir must name a directory.")
        for name in ("delay_iterations", "max_iterations"):
            if not 0 <= getattr(self, name) < 2**31:
                raise ConfigError(f"--profiler-config: {name} must be at least 0.")


class EngineConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Settings of one engine; raises `ConfigError` naming the setting that is wrong."""

    # a local folder, a GGUF file, a name on the Hugging Face hub, or "demo" for the bundled model
    model: str = "demo"
    tokenizer: str | None = None  # the same, for what turns text to ids; None is the model's own
    revision: str | None = None  # on the hub: a branch, a tag or a commit
    download_dir: str | None = None  # for what is downloaded; None is Hugging Face's cache
    runner: Literal["auto", "generate", "pooling"] = "auto"  # writes text, or gives vectors
    # a model that writes text, taken for embeddings; or a classifier with or without its head
    convert: Literal["auto", "none", "embed", "classify"] = "auto"
    pooler_config: PoolerConfig | None = None
    hf_overrides: dict[str, Any] | None = None  # go before the values of config.json
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    load_format: Literal["auto", "dummy"] = "auto"
    quantization: str | None = None  # int8, fp8: while it is read; None: as the checkpoint is
    seed: int = 0
    # tokens; None is the model's own context, "auto" (or -1) as much of it as the memory holds
    max_model_len: int | Literal["auto"] | None = None
    max_num_seqs: int | None = None  # rows in a step
    max_num_batched_tokens: int | None = None  # tokens in a step
    block_size: int | None = None  # slots in a page
    attention_backend: Literal["auto", "mosaic", "triton", "xla"] = "auto"  # auto: the device's own
    kv_cache_dtype: Literal["auto", "bfloat16", "fp8", "fp8_e4m3", "int8_per_token_head"] = "auto"
    gpu_memory_utilization: float = 0.92  # share of the free device memory to use
    kv_cache_memory_bytes: int | None = None
    num_gpu_blocks_override: int | None = None  # pages, instead of a share of the memory
    kv_offloading_size: float | None = None  # GiB of host memory for pages that the device drops
    tensor_parallel_size: int = 1
    scheduling_policy: Literal["fcfs", "priority", "lpm"] = "fcfs"
    enable_prefix_caching: bool = True
    kv_cache_metrics: bool = False  # how long pages stay in the prefix cache
    kv_cache_metrics_sample: float = 0.01  # share of pages that are watched for it
    async_scheduling: bool = True  # start a step before the one before it is read
    # decode steps that the device has at once if nobody waits, in two programs if asynchronous;
    # auto: on CPUs four, in one program, while these take less than a tenth of a second
    num_scheduler_steps: int | Literal["auto"] = "auto"
    speculative_config: SpeculativeConfig | None = None  # None: no token is guessed
    watermark_config: WatermarkConfig | None = None  # None: drawn tokens tell nothing
    logits_processors: tuple[str, ...] = ()  # module:Class, or names of entry points
    enable_prompt_embeds: bool = False  # prompts may be embeddings instead of tokens
    enable_return_hidden_states: bool = False  # requests may ask for the last layer's states
    # of which distribution: the model's, or what the sampling options leave of it
    logprobs_mode: Literal["raw_logprobs", "processed_logprobs"] = "raw_logprobs"
    enable_return_routed_experts: bool = False  # answers say which experts each token took
    enable_lora: bool = False  # requests may name adapters
    lora_modules: tuple[LoRARequest, ...] = ()  # those that are known from the start
    max_loras: int = 1  # adapters that requests in one step may have
    max_lora_rank: int = 16
    max_cpu_loras: int | None = None  # kept in the host's memory; None: as many as max_loras
    compilation_cache_dir: str | None = None  # None is the user's cache folder
    compilation_cache_size: float = 4.0  # GiB that programs of earlier starts may take there
    enable_sleep_mode: bool = False  # weights and pages may be let go of while nobody asks
    profiler_config: ProfilerConfig | None = None  # None: nothing is traced

    def __post_init__(self) -> None:
        if self.max_model_len == -1:
            msgspec.structs.force_setattr(self, "max_model_len", "auto")
        for name in _POSITIVE:
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ConfigError(f"{flag(name)} must be at least 1, got {value}.")
        self._check_scheduler_steps()
        self._check_adapters()
        if self.max_model_len == 1:
            raise ConfigError("--max-model-len must be at least 2: a prompt, and a token after it.")
        if self.block_size is not None and self.block_size not in PAGE_SIZES:
            sizes = ", ".join(map(str, PAGE_SIZES))
            raise ConfigError(f"--block-size must be one of {sizes}, got {self.block_size}.")
        if not 0 <= self.compilation_cache_size <= _MOST_GIB:
            raise ConfigError(
                f"--compilation-cache-size must be from 0 to {_MOST_GIB} GiB, "
                f"got {self.compilation_cache_size}."
            )
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ConfigError(
                "--gpu-memory-utilization must be above 0 and at most 1, "
                f"got {self.gpu_memory_utilization}."
            )
        if not 0 < self.kv_cache_metrics_sample <= 1:
            raise ConfigError(
                "--kv-cache-metrics-sample must be above 0 and at most 1, "
                f"got {self.kv_cache_metrics_sample}."
            )
        if self.kv_offloading_size is not None:
            if not 0 < self.kv_offloading_size <= _MOST_GIB:
                raise ConfigError(
                    f"--kv-offloading-size must be above 0 and at most {_MOST_GIB} GiB, "
                    f"got {self.kv_offloading_size}."
                )
            if not self.enable_prefix_caching:
                raise ConfigError(
                    "--kv-offloading-size keeps pages of the prefix cache, and "
                    "--no-enable-prefix-caching turns that off; leave one of them out."
                )

    def _check_adapters(self) -> None:
        if self.max_cpu_loras is not None and self.max_cpu_loras < self.max_loras:
            raise ConfigError(
                f"--max-cpu-loras {self.max_cpu_loras} is below --max-loras {self.max_loras}; "
                "what a step computes with comes from there."
            )
        if self.lora_modules and not self.enable_lora:
            raise ConfigError("--lora-modules needs --enable-lora.")
        names = [lora.lora_name for lora in self.lora_modules]
        if len({*names}) < len(names):
            raise ConfigError(f"--lora-modules names an adapter twice: {', '.join(names)[:200]}.")

    def _check_scheduler_steps(self) -> None:
        if self.num_scheduler_steps not in ("auto", *SCHEDULER_STEPS):
            numbers = ", ".join(map(str, SCHEDULER_STEPS))
            raise ConfigError(
                f"--num-scheduler-steps must be auto or one of {numbers}, "
                f"got {self.num_scheduler_steps}."
            )
        if self.num_scheduler_steps == 2 and self.async_scheduling:
            raise ConfigError(
                "--num-scheduler-steps 2 is two programs of one step each, which asynchronous "
                "scheduling is without it; use 4, 8 or 16, or 2 with --no-async-scheduling."
            )

    @property
    def program_steps(self) -> int | None:
        """Decode steps of one program; asynchronously there are two programs on the device. None is
        the engine's to say."""
        if self.num_scheduler_steps == "auto":
            return None
        return self.num_scheduler_steps // 2 if self.async_scheduling else self.num_scheduler_steps

    @property
    def asked_model_len(self) -> int | None:
        """The context, if it was given as a number."""
        return None if self.max_model_len == "auto" else self.max_model_len


def make_config(**settings: Any) -> EngineConfig:
    """The config of untyped settings; an unknown name or a wrong value is a `ConfigError`."""
    return convert_settings(settings, EngineConfig)
