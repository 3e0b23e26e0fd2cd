"""Whether a model computes what it should: by itself, and beside transformers."""
