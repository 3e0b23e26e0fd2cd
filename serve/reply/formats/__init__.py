"""A file a format: what it is called, its grammar, and how a chat template shows it."""
