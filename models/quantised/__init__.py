"""Weights in eight and four bits: how they lie in checkpoints and on devices."""
