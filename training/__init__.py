"""New weights: trainers that turn a dataset into a checkpoint."""
