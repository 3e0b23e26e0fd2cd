"""`/generate`, SGLang's own route."""
