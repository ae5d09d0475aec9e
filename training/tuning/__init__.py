"""Which weights a trainer moves, and how the result is written."""
