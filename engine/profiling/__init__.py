"""Traces of what host and devices do in each step."""
