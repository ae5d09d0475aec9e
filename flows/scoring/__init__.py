"""`winnow scorers`: the two scorers that `deita` reads, made here."""
