"""Beam search: what is asked, the search over one prompt, and the searches on an engine."""
