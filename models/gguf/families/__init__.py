"""One file for each kind of model: its names, its keys, and what files leave out of it."""
