"""The routes of OpenAI's chat and completions, and of vLLM beside them."""
