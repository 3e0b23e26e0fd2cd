"""What llama.cpp's converter does to tensors, undone as they are read; no family in particular."""
