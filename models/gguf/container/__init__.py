"""The file itself, or its parts: its keys, its tensors by name, their blocks as numbers."""
