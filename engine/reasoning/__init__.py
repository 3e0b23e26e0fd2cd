"""Which of a reply's tokens are thoughts, and how many there may be."""
