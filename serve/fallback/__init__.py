"""APIs that answer in a server's place: which, in which order, and when."""
