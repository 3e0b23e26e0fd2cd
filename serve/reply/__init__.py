"""What a model wrote, taken apart: its reasoning, its answer, and the tools that it calls.

    text ──▶ reasoning ──▶ tool calls ──▶ events

A format is a grammar written as a generator over a growing text (`reader`), so a reply that comes
in pieces and one that comes whole are parsed by the same code, in linear time. `formats/` has a
small file a format; `registry` finds the one that a model's chat template speaks.
"""
