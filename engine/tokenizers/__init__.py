"""Texts to token ids and back: every kind of tokenizer file, as a `tokenizers` backend."""
