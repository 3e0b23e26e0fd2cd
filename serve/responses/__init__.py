"""OpenAI's Responses API, over the same conversations as the chat API."""
