"""Layers beside attention, a file each: those whose memory is a state and not a cache."""

from jax.typing import DTypeLike

from models.config import ModelConfig
from models.mixer_config import DualScan, GatedDelta, Mixer
from models.mixers.dual_scan import DualScanMixer
from models.mixers.gated_delta import GatedDeltaMixer

AnyMixer = DualScanMixer | GatedDeltaMixer


def make_mixer(config: ModelConfig, mixer: Mixer, dtype: DTypeLike) -> AnyMixer:
    """The module that `mixer` describes."""
    match mixer:
        case DualScan():
            return DualScanMixer(config, mixer, dtype)
        case GatedDelta():
            return GatedDeltaMixer(config, mixer, dtype)
