"""Ollama's API, which SGLang serves, too: chats and prompts, answered line by line."""
