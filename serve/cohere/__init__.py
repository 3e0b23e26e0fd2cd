"""Cohere's chat API, as vLLM serves it."""
