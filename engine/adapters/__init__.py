"""Adapters of low rank beside a running model: who asks for which, and in which slot it lies."""
