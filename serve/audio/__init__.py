"""Speech to text as OpenAI's API has it, by models that hear, such as Whisper."""
