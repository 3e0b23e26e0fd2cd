"""`ingot bench`: load on any OpenAI-compatible server, and the engine measured by itself."""
