"""Structured outputs: what a request may demand of its text, and how the engine keeps to it.

    params      what is demanded: a JSON schema, a regex, choices, a grammar, structural tags
    source      from that to one text in llguidance's own format (schema, tags: its parts)
    matcher     that text against a vocabulary: which tokens may follow
    background  matchers built and moved on in threads, while the device computes
    masks       what may follow, on the device
    worker      the compiler as a process of its own, that can be killed; `worker_messages`, what
                is said to it; `process`, how `LLM` starts one

Nothing here but `masks` imports JAX.
"""
