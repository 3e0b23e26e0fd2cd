"""Model definitions and the loading of checkpoints: from a folder to a decoder with its weights."""
