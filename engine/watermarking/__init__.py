"""Watermarks: texts that who has a key can tell from others.

--watermark-config ─ config ─ key, in each slot ─┐
tokens generated before ─────── contexts ────────┴─ noise ─ the sampler's draw
key, a text's token ids ─────── detector ────────── how unlikely it is by chance
"""
