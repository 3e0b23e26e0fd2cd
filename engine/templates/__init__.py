"""Conversations as prompts, written by a model's own template in a sandbox."""
