"""GGUF files, llama.cpp's format: one file that holds weights, configuration and tokenizer."""
