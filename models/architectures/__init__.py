"""One file a model family: how to read its config.json, and what its tensors are called."""
