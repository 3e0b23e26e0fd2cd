"""The spectrogram equals what transformers' WhisperFeatureExtractor gave.

python -m tests.serve.audio.test_log_mel      records it anew; needs transformers
"""

from pathlib import Path

import numpy as np
import pytest

from engine.encoders.log_mel import log_mel

GOLDEN = Path(__file__).parent / "log_mel.npz"
SAMPLES = 24_000


def wave() -> np.ndarray:
    """A rising tone with another, a click, some noise, and silence at the end."""
    time = np.arange(SAMPLES) / 16_000
    tones = np.sin(2 * np.pi * (200 + 900 * time) * time) + 0.2 * np.sin(9000 * time)
    tones[7000] += 0.8
    tones[20_000:] = 0
    noise = np.random.PCG64(0).random_raw(SAMPLES).astype(np.float64) / 2**64 - 0.5
    return (0.3 * tones + 0.01 * noise * (tones != 0)).astype(np.float32)


@pytest.mark.parametrize("mels", [80, 128])
def test_it_is_that_of_transformers(mels: int) -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        frames = golden["frames"]
        features = log_mel(wave(), mels, 3000)
        assert features.shape == (3000, mels)
        np.testing.assert_allclose(features[frames], golden[f"mels{mels}"], atol=1e-5)


def test_longer_audio_is_cut() -> None:
    np.testing.assert_array_equal(log_mel(wave(), 80, 50)[:40], log_mel(wave()[:8200], 80, 50)[:40])


def main() -> None:
    from transformers import WhisperFeatureExtractor

    frames = np.array([0, 1, 2, 3, 20, 43, 44, 45, 99, 124, 125, 126, 149, 150, 151, 2998, 2999])
    found = {"frames": frames}
    for mels in (80, 128):
        extract = WhisperFeatureExtractor(feature_size=mels)
        padded = np.pad(wave(), (0, 480_000 - SAMPLES))  # PyTorch's is rounded to float32 inside
        [features] = extract._np_extract_fbank_features(padded[None], "cpu")
        found[f"mels{mels}"] = features.T[frames].astype(np.float32)
    np.savez_compressed(GOLDEN, **found)


if __name__ == "__main__":
    main()
