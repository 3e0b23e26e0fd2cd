"""Routes that give vectors, classes and scores."""
