"""Tokens that may come next, guessed and then computed in the rows that a step has left.

A draft is a row: each guessed token is computed beside the newest one of its request, in a row that
has the same slot and pages and stands one place further on. What the row before it gives says
whether the guess was right; then what it gives is the next token, and so on. Each place draws with
a key of its own, so that tokens are the same with drafts and without, at any temperature.

No program is added: the steps that decode many requests decode one request's guesses as well.
"""
