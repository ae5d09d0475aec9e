"""What is kept: the nouns, artifacts, signals, the catalogue, file formats."""
