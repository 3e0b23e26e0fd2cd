"""What a started engine says of itself: the model, its sizes, and how long the start took."""

from engine.cache.host_tier import HostTier
from engine.compiling.fitting import Fitted
from engine.messages import ModelInfo
from models.checkpoints.loading import LoadedModel


def info_of(
    model: LoadedModel,
    fitted: Fitted,
    tier: HostTier | None,
    load_seconds: float,
    compile_seconds: float,
) -> ModelInfo:
    """Of an engine that is fitted; both times are in seconds."""
    shapes, kv = fitted.shapes, fitted.kv
    leaves, devices = model.leaves, model.mesh.devices
    return ModelInfo(
        architecture=model.config.architecture,
        vocab_size=model.config.vocab_size,
        max_model_len=shapes.max_model_len,
        num_parameters=model.num_parameters,
        eos_token_ids=sorted(model.eos_token_ids),
        max_num_seqs=shapes.max_num_seqs,
        num_pages=kv.num_pages - 1,
        page_size=shapes.page_size,
        load_seconds=load_seconds,
        compile_seconds=compile_seconds,
        dtype=str(leaves[0].dtype),
        quantization=model.quantization,
        device=devices.flat[0].device_kind,
        num_devices=devices.size,
        attention_backend=kv.backend.value,
        parameter_bytes=sum(leaf.nbytes for leaf in leaves),
        kv_cache_bytes=kv.num_pages * kv.page_bytes,
        temporary_bytes=fitted.temporary_bytes,
        num_host_pages=0 if tier is None else tier.capacity,
        max_encoder_len=shapes.max_encoder_len,
        decoder_prompt=model.decoder_prompt,
        mel_bins=model.config.encoder.mel_bins if model.config.encoder else 0,
        aligns=fitted.aligner is not None,
        prompt_embeds_size=kv.given.size if kv.given else 0,
        hidden_size=model.config.hidden_size if shapes.hidden else 0,
        routed=shapes.routed,
        processed_logprobs=shapes.processed_logprobs,
        watermarks=shapes.watermark is not None,
    )


def described(name: str, info: ModelInfo) -> str:
    """The same in several lines, for who looks at an `LLM`."""
    weights = f"{info.quantization} and {info.dtype}" if info.quantization else info.dtype
    return (
        f"LLM({name!r} on {info.num_devices} x {info.device})\n"
        f"  model     {info.architecture}, {info.num_parameters / 1e6:.1f} M parameters, "
        f"{weights}, {info.parameter_bytes / 2**20:.1f} MiB\n"
        f"  attention {info.attention_backend}\n"
        f"{_cache_line(info)}"
        f"  limits    {info.max_model_len} tokens of context, {info.max_num_seqs} at a time\n"
        f"  start     load {info.load_seconds:.1f} s, compile {info.compile_seconds:.1f} s"
    )


def _cache_line(info: ModelInfo) -> str:
    if not info.num_pages:
        return ""
    return (
        f"  KV cache  {info.num_pages} pages of {info.page_size} tokens, "
        f"{info.kv_cache_bytes / 2**20:.1f} MiB\n"
    )
