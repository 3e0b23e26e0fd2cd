"""Layers beside attention, a file each: those whose memory is a state and not a cache."""

from jax.typing import DTypeLike

from models.config.decoder import ModelConfig
from models.config.mixers import (
    DualScan,
    GatedConv,
    GatedDelta,
    KeyedDelta,
    LinearRecurrence,
    Mixer,
    SelectiveScan,
)
from models.mixers.dual_scan import DualScanMixer
from models.mixers.gated_conv import GatedConvMixer
from models.mixers.gated_delta import GatedDeltaMixer
from models.mixers.keyed_delta import KeyedDeltaMixer
from models.mixers.linear_recurrence import LinearRecurrenceMixer
from models.mixers.selective_scan import SelectiveScanMixer

AnyMixer = (
    DualScanMixer
    | GatedDeltaMixer
    | KeyedDeltaMixer
    | SelectiveScanMixer
    | GatedConvMixer
    | LinearRecurrenceMixer
)


def make_mixer(config: ModelConfig, mixer: Mixer, dtype: DTypeLike) -> AnyMixer:
    """The module that `mixer` describes."""
    match mixer:
        case DualScan():
            return DualScanMixer(config, mixer, dtype)
        case GatedDelta():
            return GatedDeltaMixer(config, mixer, dtype)
        case KeyedDelta():
            return KeyedDeltaMixer(config, mixer, dtype)
        case SelectiveScan():
            return SelectiveScanMixer(config, mixer, dtype)
        case GatedConv():
            return GatedConvMixer(config, mixer, dtype)
        case LinearRecurrence():
            return LinearRecurrenceMixer(config, mixer, dtype)
