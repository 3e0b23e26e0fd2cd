"""PyTorch's own files, `pytorch_model.bin`: read without PyTorch, and without running a pickle."""
