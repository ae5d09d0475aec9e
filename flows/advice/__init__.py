"""`winnow advise`: which mixture of sources to train on."""
