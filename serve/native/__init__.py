"""Routes of SGLang's and vLLM's own, which no other API has: /generate and its kin."""
