"""The limit of infinitely many tokens."""
