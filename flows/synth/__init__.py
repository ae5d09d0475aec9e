"""`winnow synth`: new rows from seeds, models and endpoints, and what each of them cost."""
