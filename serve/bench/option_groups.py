"""Options of benchmarks, each declared once with its default, which is vLLM's."""

from pathlib import Path

from serve.bench import options
from serve.commands import options as engine_options
from serve.commands import scheduling_options


class ServerOptions:
    """Who is asked, and how a request is written."""

    backend: options.Backend = "openai"
    base_url: options.BaseUrl = None
    host: options.Host = "127.0.0.1"
    port: options.Port = 8000
    endpoint: options.Endpoint = None
    ready_check_timeout: options.ReadyCheckTimeout = 0.0
    model: options.Model = None
    tokenizer: options.TokenizerFolder = None
    lora_modules: options.LoraModules = None
    lora_assignment: options.LoraAssignment = "random"
    api_key: options.ApiKey = None
    header: options.Header = None
    extra_body: options.ExtraBody = None
    ignore_eos: options.IgnoreEos = None


class SamplingOptions:
    """How tokens are chosen; what is not given is the server's to say."""

    temperature: options.Temperature = None
    top_p: options.TopP = None
    top_k: options.TopK = None
    min_p: options.MinP = None
    frequency_penalty: options.Penalty = None
    presence_penalty: options.Penalty = None
    repetition_penalty: options.Penalty = None


class SampleOptions:
    """What is asked."""

    dataset_name: options.DatasetName = "random"
    dataset_path: options.DatasetPath = None
    num_prompts: options.NumPrompts = 1000
    seed: options.Seed = 0
    random_input_len: options.RandomInputLen = 1024
    random_output_len: options.RandomOutputLen = 128
    random_range_ratio: options.RandomRangeRatio = 0.0
    random_prefix_len: options.RandomPrefixLen = 0
    random_batch_size: options.RandomBatchSize = 1
    prefix_len: options.PrefixLen = 256
    suffix_len: options.SuffixLen = 256
    num_prefixes: options.NumPrefixes = 10
    num_turns: options.NumTurns = 10
    first_len: options.FirstLen = 600
    message_len: options.MessageLen = 24
    output_len: options.OutputLen = None


class TrafficOptions:
    """When it is asked."""

    request_rate: options.RequestRate = float("inf")
    burstiness: options.Burstiness = 1.0
    max_concurrency: options.MaxConcurrency = None
    num_warmups: options.NumWarmups = 0
    profile: options.Profile = False
    ramp_up_strategy: options.RampUpStrategy = None
    ramp_up_start_rps: options.RampUpStart = 1.0
    ramp_up_end_rps: options.RampUpEnd = 1.0


class ResultOptions:
    """What is told of it, and where it is kept."""

    goodput: options.Goodput = None
    percentile_metrics: options.PercentileMetrics = "ttft,tpot,itl"
    metric_percentiles: options.MetricPercentiles = "99"
    save_result: options.SaveResult = False
    save_detailed: options.SaveDetailed = False
    label: options.Label = None
    metadata: options.Metadata = None
    result_dir: options.ResultDir = Path(".")
    result_filename: options.ResultFilename = None
    plot: options.Plot = None


class EngineOptions:
    """The engine that is measured without a server, as `ingot serve` calls it."""

    model: engine_options.Model = "demo"
    revision: engine_options.Revision = None
    download_dir: engine_options.DownloadDir = None
    hf_overrides: engine_options.HfOverrides = None
    dtype: engine_options.Dtype = "auto"
    load_format: engine_options.LoadFormat = "auto"
    quantization: engine_options.Quantization = None
    max_model_len: engine_options.MaxModelLen = None
    max_num_batched_tokens: engine_options.MaxNumBatchedTokens = None


class StepOptions:
    """How its steps are computed."""

    tensor_parallel_size: engine_options.TensorParallelSize = 1
    async_scheduling: scheduling_options.AsyncScheduling = True
    num_scheduler_steps: scheduling_options.NumSchedulerSteps = "auto"
    speculative_config: scheduling_options.SpeculativeConfig = None


class OfflineSampleOptions:
    """What such an engine is asked."""

    dataset_name: options.DatasetName = "random"
    dataset_path: options.DatasetPath = None
    num_prompts: options.NumPrompts = 1000
    seed: options.Seed = 0
    output_len: options.OutputLen = None
    random_range_ratio: options.RandomRangeRatio = 0.0
    random_prefix_len: options.RandomPrefixLen = 0
    prefix_len: options.PrefixLen = 256
    suffix_len: options.SuffixLen = 256
    num_prefixes: options.NumPrefixes = 10
