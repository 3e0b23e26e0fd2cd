"""Vectors that come with a prompt in the place of tokens, and those that go out with an answer."""
