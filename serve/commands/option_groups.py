"""Options that commands take together, each declared once with its default.

    @app.command()
    @takes(ModelOptions, MemoryOptions)
    def check(prompt: ..., **given: Any) -> None:

`given` then holds every option of the groups by its name. Owns which option is in which group; what
each is called and means is in `options` and the files beside it.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from serve.commands import (
    adapter_options,
    answer_options,
    operation_options,
    options,
    scheduling_options,
)

Command = TypeVar("Command", bound=Callable[..., None])


class ModelOptions:
    """Which model, and how it is read."""

    tokenizer: answer_options.Tokenizer = None
    revision: options.Revision = None
    download_dir: options.DownloadDir = None
    runner: options.Runner = "auto"
    convert: options.Convert = "auto"
    pooler_config: options.PoolerConfig = None
    hf_overrides: options.HfOverrides = None
    dtype: options.Dtype = "auto"
    load_format: options.LoadFormat = "auto"
    quantization: options.Quantization = None
    seed: options.Seed = 0


class MemoryOptions:
    """How much is computed at once, where, and what is kept."""

    max_model_len: options.MaxModelLen = None
    max_num_seqs: options.MaxNumSeqs = None
    max_num_batched_tokens: options.MaxNumBatchedTokens = None
    block_size: options.BlockSize = None
    attention_backend: options.AttentionBackend = "auto"
    kv_cache_dtype: options.KvCacheDtype = "auto"
    gpu_memory_utilization: options.GpuMemoryUtilization = 0.92
    kv_cache_memory_bytes: options.KvCacheMemoryBytes = None
    num_gpu_blocks_override: options.NumGpuBlocksOverride = None
    kv_offloading_size: options.KvOffloadingSize = None
    tensor_parallel_size: options.TensorParallelSize = 1
    scheduling_policy: scheduling_options.SchedulingPolicy = "fcfs"
    enable_prefix_caching: options.EnablePrefixCaching = True
    async_scheduling: scheduling_options.AsyncScheduling = True
    num_scheduler_steps: scheduling_options.NumSchedulerSteps = "auto"
    speculative_config: scheduling_options.SpeculativeConfig = None
    logits_processors: options.LogitsProcessors = None
    watermark_config: scheduling_options.WatermarkConfig = None
    compilation_cache_dir: options.CompilationCacheDir = None
    compilation_cache_size: options.CompilationCacheSize = 4.0


class AdapterOptions:
    """What may be computed beside the model's matrices."""

    enable_lora: adapter_options.EnableLora = False
    lora_modules: adapter_options.LoraModules = None
    max_loras: adapter_options.MaxLoras = 1
    max_lora_rank: adapter_options.MaxLoraRank = 16
    max_cpu_loras: adapter_options.MaxCpuLoras = None


class AnswerOptions:
    """How requests are understood, and their answers written."""

    served_model_name: options.ServedModelName = None
    chat_template: options.ChatTemplate = None
    chat_template_content_format: answer_options.ChatTemplateContentFormat = "auto"
    default_chat_template_kwargs: answer_options.DefaultChatTemplateKwargs = None
    trust_request_chat_template: options.TrustRequestChatTemplate = False
    tool_call_parser: options.ToolCallParser = "auto"
    reasoning_parser: options.ReasoningParser = "auto"
    enable_auto_tool_choice: options.EnableAutoToolChoice = True
    response_role: answer_options.ResponseRole = "assistant"
    generation_config: options.GenerationConfig = "auto"
    override_generation_config: answer_options.OverrideGenerationConfig = None
    structured_outputs_config: answer_options.StructuredOutputsConfig = None
    max_logprobs: answer_options.MaxLogprobs = 20
    logprobs_mode: answer_options.LogprobsMode = "raw_logprobs"
    enable_prompt_embeds: answer_options.EnablePromptEmbeds = False
    enable_return_hidden_states: answer_options.EnableReturnHiddenStates = False
    enable_return_routed_experts: answer_options.EnableReturnRoutedExperts = False
    max_body_bytes: options.MaxBodyBytes = 8 * 1024 * 1024
    max_audio_clip_filesize_mb: options.MaxAudioClipFilesizeMb = 25


class HttpOptions:
    """Who may ask, over what, and how much."""

    host: options.Host = "127.0.0.1"
    port: options.Port = 8000
    uds: options.Uds = None
    ssl_certfile: options.SslCertfile = None
    ssl_keyfile: options.SslKeyfile = None
    allowed_hosts: options.AllowedHosts = None
    allowed_origins: options.AllowedOrigins = None
    root_path: answer_options.RootPath = ""
    enable_request_id_headers: answer_options.EnableRequestIdHeaders = False
    api_key: options.ApiKey = None
    admin_api_key: options.AdminApiKey = None
    isolate_prefix_cache: options.IsolatePrefixCache = True
    stream_interval: options.StreamInterval = 1
    max_num_queued_reqs: options.MaxNumQueuedReqs = None
    max_num_queued_tokens: options.MaxNumQueuedTokens = None
    max_concurrent_requests_per_key: options.MaxConcurrentRequestsPerKey = None


class OperationOptions:
    """What is told about the server, and what happens when it cannot go on."""

    enable_log_requests: options.EnableLogRequests = False
    enable_per_request_metrics: options.EnablePerRequestMetrics = False
    kv_cache_metrics: operation_options.KvCacheMetrics = False
    kv_cache_metrics_sample: operation_options.KvCacheMetricsSample = 0.01
    enable_sleep_mode: operation_options.EnableSleepMode = False
    profiler_config: operation_options.ProfilerConfig = None
    log_level: options.LogLevel = "info"
    log_format: options.LogFormat = "text"
    uvicorn_log_level: options.UvicornLogLevel = "warning"
    otlp_traces_endpoint: options.OtlpTracesEndpoint = None
    fallback_url: operation_options.FallbackUrl = None
    try_timeout: operation_options.TryTimeout = 600.0
    watchdog_timeout: operation_options.WatchdogTimeout = 300.0
    shutdown_timeout: options.ShutdownTimeout = 30.0


def takes(*groups: type) -> Callable[[Command], Command]:
    """Give a command that ends with `**given` the options of these groups."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        parameters = [*own, *(each for group in groups for each in _parameters(group))]
        given: Any = command
        given.__signature__ = signature.replace(parameters=parameters)
        given.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def _parameters(group: type) -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, kind, default=getattr(group, name), annotation=annotation)
        for name, annotation in inspect.get_annotations(group).items()
    ]
