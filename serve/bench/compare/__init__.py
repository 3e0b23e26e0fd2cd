"""`ingot bench compare`: the same work through Ingot and its peers, round by round."""
