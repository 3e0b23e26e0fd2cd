"""The adapters of a running server: their names, their loads, the operator's routes."""
