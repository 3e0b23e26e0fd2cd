"""The paged cache: which pages there are, what they hold, who has them, where else they may lie."""
