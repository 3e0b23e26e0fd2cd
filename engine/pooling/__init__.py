"""The engine of models that give vectors: whole sequences in, one vector each out."""
