"""Ingot's engine: the scheduler, the paged KV cache, the compiled step, and the `LLM` API.

Names are loaded when they are first used, so the HTTP front can import the parts it needs
without importing JAX.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.adapters.request import LoRARequest
    from engine.beams.params import BeamSearchParams
    from engine.config import EngineConfig
    from engine.grammar.params import StructuredOutputsParams
    from engine.language import Remote, State, choice, function, gen
    from engine.llm import LLM
    from engine.outputs import CompletionOutput, RequestOutput
    from engine.pooling_params import PoolingParams
    from engine.reasoning.config import ReasoningConfig
    from engine.sampling.logits_processors import LogitsProcessor
    from engine.sampling.params import SamplingParams
    from engine.stopping.repetition import RepetitionDetectionParams
    from engine.watermarking.config import WatermarkConfig
    from engine.watermarking.detector import GumbelWatermarkDetector

_HOMES = {
    "LLM": "engine.llm",
    "LogitsProcessor": "engine.sampling.logits_processors",
    "LoRARequest": "engine.adapters.request",
    "SamplingParams": "engine.sampling.params",
    "StructuredOutputsParams": "engine.grammar.params",
    "BeamSearchParams": "engine.beams.params",
    "PoolingParams": "engine.pooling_params",
    "EngineConfig": "engine.config",
    "ReasoningConfig": "engine.reasoning.config",
    "RepetitionDetectionParams": "engine.stopping.repetition",
    "WatermarkConfig": "engine.watermarking.config",
    "GumbelWatermarkDetector": "engine.watermarking.detector",
    "RequestOutput": "engine.outputs",
    "CompletionOutput": "engine.outputs",
    "gen": "engine.language",
    "choice": "engine.language",
    "function": "engine.language",
    "State": "engine.language",
    "Remote": "engine.language",
}

__all__ = [
    "LLM", "BeamSearchParams", "CompletionOutput", "EngineConfig", "GumbelWatermarkDetector",
    "LoRARequest", "LogitsProcessor", "PoolingParams", "ReasoningConfig", "Remote",
    "RepetitionDetectionParams", "RequestOutput", "SamplingParams", "State",
    "StructuredOutputsParams", "WatermarkConfig", "choice", "function", "gen",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
